"""SMPL with SPIN's 49 joints, and a fast path that computes joints without the whole mesh."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import smplx
import torch
from smplx.lbs import batch_rodrigues
from smplx.utils import SMPLOutput, Struct
from torch import Tensor

from ..utils.keypoints import H36M_TO_J14, SMPL49_MAP
from .body import BodyData

_N_JOINTS, _N_PICKED = 24, 21
_BLOCK, _BLOCK_VERTICES = 16, 2000  # whole meshes skinned at once on a CPU: what its caches hold


class _Bases(NamedTuple):
    """Rest shape, blend shapes and weights of V chosen vertices, in planes: x of all, y of all, z of all."""

    template: Tensor  # (3 V,)
    blend: Tensor  # (10 + 207, 3 V): shape then pose
    weights: Tensor  # (24, V)
    joint_template: Tensor  # (72,)
    joint_shapedirs: Tensor  # (10, 72)
    regressor: Tensor  # (R, V), vertices to joints


class SMPL(smplx.SMPL):
    """``smplx.SMPL`` built from :class:`BodyData`, with SPIN's 49 joints and the original state-dict keys.

    Args:
        body: the body model.
        batch_size: size of the stored pose and shape parameters. They are kept because checkpoints hold them;
            nothing reads them and they do not require gradients.
    """

    def __init__(self, body: BodyData, batch_size: int = 64) -> None:
        kinematic_tree = torch.stack((torch.from_numpy(body.parents), torch.arange(_N_JOINTS))).numpy()
        fields = Struct(
            v_template=body.v_template,
            shapedirs=body.shapedirs,
            posedirs=body.posedirs,
            J_regressor=body.J_regressor,
            weights=body.weights,
            f=body.faces,
            kintree_table=kinematic_tree,
        )
        with contextlib.redirect_stdout(io.StringIO()):  # it prints that there are only 10 shape coefficients
            super().__init__(
                model_path="",
                data_struct=fields,
                batch_size=batch_size,
                create_transl=False,
                gender=body.gender,
            )
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        self.register_buffer("J_regressor_extra", torch.from_numpy(body.J_regressor_extra).clone())
        self.register_buffer("_joint_map", torch.tensor(SMPL49_MAP), persistent=False)
        self._tree = body.parents.tolist()
        self._cache: dict[str, tuple[Tensor | None, _Bases]] = {}

    def forward(
        self,
        betas: Tensor,
        body_pose: Tensor,
        global_orient: Tensor,
        transl: Tensor | None = None,
        pose2rot: bool = True,
    ) -> SMPLOutput:
        """Pose the body.

        Args:
            betas: (n, 10).
            body_pose: (n, 69) axis-angle, or (n, 23, 3, 3) with ``pose2rot=False``.
            global_orient: (n, 3) axis-angle, or (n, 1, 3, 3) with ``pose2rot=False``.
            transl: (n, 3) metres.
            pose2rot: whether the pose is axis-angle.

        Returns:
            an object with ``vertices`` (n, 6890, 3) and ``joints`` (n, 49, 3), metres.
        """
        if pose2rot:
            pose = torch.cat((global_orient, body_pose), dim=1)
            rotmat = batch_rodrigues(pose.reshape(-1, 3)).view(-1, _N_JOINTS, 3, 3)
        else:
            rotmat = torch.cat((global_orient, body_pose), dim=1).reshape(-1, _N_JOINTS, 3, 3)
        bases = self._bases("mesh")
        vertices, posed_joints = self._skin(betas, rotmat, bases)
        picked = vertices[:, self.vertex_joint_selector.extra_joints_idxs]
        pool = torch.cat((posed_joints, picked, bases.regressor @ vertices), dim=1)
        joints = pool[:, self._joint_map]
        if transl is not None:
            vertices, joints = vertices + transl[:, None], joints + transl[:, None]
        return SMPLOutput(
            vertices=vertices, joints=joints, betas=betas, body_pose=body_pose, global_orient=global_orient
        )

    def joints(self, betas: Tensor, rotmat: Tensor, J_regressor: Tensor | None = None) -> Tensor:
        """Joints without the mesh: the numbers of :meth:`forward` from only the vertices that they need.

        Args:
            betas: (n, 10).
            rotmat: (n, 24, 3, 3).
            J_regressor: (17, 6890), to get the 14 evaluation joints of the H36M regressor.

        Returns:
            (n, 49, 3) joints, or (n, 14, 3) with a regressor, metres.
        """
        bases = self._bases("49" if J_regressor is None else "14", J_regressor)
        vertices, posed_joints = self._skin(betas, rotmat, bases)
        if J_regressor is not None:
            return bases.regressor @ vertices
        return torch.cat((posed_joints, bases.regressor @ vertices), dim=1)[:, self._joint_map]

    def regress(self, betas: Tensor, rotmat: Tensor, regressor: Tensor) -> tuple[Tensor, Tensor]:
        """The 24 posed joints (n, 24, 3), and ``regressor`` (R, 6890) applied to the vertices (n, R, 3)."""
        bases = self._bases("points", regressor)
        vertices, posed_joints = self._skin(betas, rotmat, bases)
        return posed_joints, bases.regressor @ vertices

    def _skin(self, betas: Tensor, rotmat: Tensor, bases: _Bases) -> tuple[Tensor, Tensor]:
        """Linear blend skinning (Loper et al. 2015): vertices (n, V, 3) and posed joints (n, 24, 3)."""
        n, n_vertices = len(rotmat), bases.weights.shape[1]
        if n > _BLOCK and n_vertices > _BLOCK_VERTICES and not (rotmat.is_cuda or torch.is_grad_enabled()):
            parts = zip(betas.split(_BLOCK), rotmat.split(_BLOCK))
            skinned = [self._skin(*part, bases) for part in parts]
            return torch.cat([part[0] for part in skinned]), torch.cat([part[1] for part in skinned])
        rest = torch.addmm(bases.joint_template, betas, bases.joint_shapedirs).view(n, _N_JOINTS, 3)
        rotations, positions = [rotmat[:, 0]], [rest[:, 0]]
        for joint, parent in enumerate(self._tree[1:], start=1):
            bone = rest[:, joint] - rest[:, parent]
            rotations.append(rotations[parent] @ rotmat[:, joint])
            positions.append(positions[parent] + (rotations[parent] @ bone[..., None])[..., 0])
        rotation, joints = torch.stack(rotations, 1), torch.stack(positions, 1)
        offset = joints - (rotation @ rest[..., None])[..., 0]

        pose_feature = (rotmat[:, 1:] - torch.eye(3, dtype=rotmat.dtype, device=rotmat.device)).flatten(1)
        coefficients = torch.cat((betas, pose_feature), dim=1)
        posed = torch.addmm(bases.template, coefficients, bases.blend).view(n, 3, n_vertices)

        # One transform per vertex as 3x4 planes of V numbers: a single product, then plain multiply-adds.
        transform = torch.cat((rotation, offset[..., None]), dim=-1).permute(0, 2, 3, 1)
        transform = (transform.reshape(n * 12, _N_JOINTS) @ bases.weights).view(n, 3, 4, n_vertices)
        vertices = transform[:, :, 3]
        for axis in range(3):
            vertices = torch.addcmul(vertices, transform[:, :, axis], posed[:, axis : axis + 1])
        return vertices.transpose(1, 2).contiguous(), joints

    def _bases(self, name: str, J_regressor: Tensor | None = None) -> _Bases:
        """Bases of the mesh or of a joint set; computed once per device and set of weights."""
        kept = self._cache.get(name)
        if kept is None or kept[0] is not J_regressor:
            # Outside of inference mode, or training could not use what prediction has cached.
            with torch.inference_mode(False), torch.no_grad():
                kept = J_regressor, self._make_bases(name, J_regressor)
            self._cache[name] = kept
        return kept[1]

    def _make_bases(self, name: str, J_regressor: Tensor | None) -> _Bases:
        chosen: Tensor | slice = slice(None)
        regressor = self.J_regressor_extra
        if name != "mesh":
            if J_regressor is None:
                picked = torch.zeros(_N_PICKED, len(self.v_template)).to(self.v_template)
                picked[torch.arange(_N_PICKED), self.vertex_joint_selector.extra_joints_idxs] = 1
                regressor = torch.cat((picked, self.J_regressor_extra))
            else:
                regressor = J_regressor.detach().to(self.v_template)
                regressor = regressor[H36M_TO_J14] if name == "14" else regressor
            chosen = regressor.any(dim=0).nonzero()[:, 0]
            regressor = regressor[:, chosen].contiguous()
        template, shapedirs = self.v_template[chosen], self.shapedirs[chosen]
        posedirs = self.posedirs.view(-1, len(self.v_template), 3)[:, chosen]
        blend = torch.cat((shapedirs.permute(2, 1, 0), posedirs.transpose(1, 2)))
        return _Bases(
            template=template.T.flatten(),
            blend=blend.flatten(1).contiguous(),
            weights=self.lbs_weights[chosen].T.contiguous(),
            joint_template=(self.J_regressor @ self.v_template).flatten(),
            joint_shapedirs=torch.einsum("jv,vck->kjc", self.J_regressor, self.shapedirs)
            .flatten(1)
            .contiguous(),
            regressor=regressor,
        )

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> SMPL:
        self._cache.clear()  # the bases would stay behind on the old device or in the old precision
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._cache.clear()

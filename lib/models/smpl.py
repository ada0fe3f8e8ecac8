"""SMPL with SPIN's 49 joints, and a fast path that computes joints without the whole mesh."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

import smplx
import torch
from jaxtyping import Float
from smplx.lbs import batch_rodrigues
from smplx.utils import SMPLOutput, Struct
from torch import Tensor

from ..utils.keypoints import H36M_TO_J14, SMPL49_MAP
from .body import BodyData
from .skinning import N_JOINTS, Bases, bases_of, skin


class SMPL(smplx.SMPL):  # type: ignore[misc]  # smplx has no types
    """``smplx.SMPL`` built from :class:`BodyData`, with SPIN's 49 joints and the original state-dict keys.

    Args:
        body: the body model.
        batch_size: size of the stored pose and shape parameters. They are kept because checkpoints hold them;
            nothing reads them and they do not require gradients.
    """

    def __init__(self, body: BodyData, batch_size: int = 64) -> None:
        kinematic_tree = torch.stack((torch.from_numpy(body.parents), torch.arange(N_JOINTS))).numpy()
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
        self._tree: list[int] = body.parents.tolist()
        self._cache: dict[str, tuple[Tensor | None, Bases]] = {}

    def forward(
        self,
        betas: Float[Tensor, "n 10"],
        body_pose: Float[Tensor, "n 69"] | Float[Tensor, "n 23 3 3"],
        global_orient: Float[Tensor, "n 3"] | Float[Tensor, "n 1 3 3"],
        transl: Float[Tensor, "n 3"] | None = None,
        pose2rot: bool = True,
    ) -> SMPLOutput:
        """Pose the body.

        Args:
            transl: metres.
            pose2rot: whether the pose is axis-angle rather than matrices.

        Returns:
            an object with ``vertices`` (n, 6890, 3) and ``joints`` (n, 49, 3), metres.
        """
        rotmat = torch.cat((global_orient, body_pose), dim=1)
        if pose2rot:
            rotmat = batch_rodrigues(rotmat.reshape(-1, 3))
        bases = self._bases("mesh")
        vertices, posed_joints = skin(betas, rotmat.reshape(-1, N_JOINTS, 3, 3), bases, self._tree)
        picked = vertices[:, self.vertex_joint_selector.extra_joints_idxs]
        pool = torch.cat((posed_joints, picked, bases.regressor @ vertices), dim=1)
        joints = pool[:, self._joint_map]
        if transl is not None:
            vertices, joints = vertices + transl[:, None], joints + transl[:, None]
        return SMPLOutput(
            vertices=vertices, joints=joints, betas=betas, body_pose=body_pose, global_orient=global_orient
        )

    def joints(
        self,
        betas: Float[Tensor, "n 10"],
        rotmat: Float[Tensor, "n 24 3 3"],
        J_regressor: Float[Tensor, "17 v"] | None = None,
    ) -> Float[Tensor, "n j 3"]:
        """Joints without the mesh: the numbers of :meth:`forward` from only the vertices that they need.

        Args:
            J_regressor: to get the 14 evaluation joints of the H36M regressor.

        Returns:
            49 joints, or with a regressor 14, metres.
        """
        bases = self._bases("49" if J_regressor is None else "14", J_regressor)
        vertices, posed_joints = skin(betas, rotmat, bases, self._tree)
        if J_regressor is not None:
            return bases.regressor @ vertices
        return torch.cat((posed_joints, bases.regressor @ vertices), dim=1)[:, self._joint_map]

    def _bases(self, name: str, J_regressor: Tensor | None = None) -> Bases:
        """Bases of the mesh or of a joint set; computed once per device and set of weights."""
        kept = self._cache.get(name)
        if kept is None or kept[0] is not J_regressor:
            # Outside of inference mode, or training could not use what prediction has cached.
            with torch.inference_mode(False), torch.no_grad():
                kept = J_regressor, self._make_bases(name, J_regressor)
            self._cache[name] = kept
        return kept[1]

    def _make_bases(self, name: str, J_regressor: Tensor | None) -> Bases:
        regressor = self.J_regressor_extra
        if J_regressor is not None:
            regressor = J_regressor.detach().to(self.v_template)[H36M_TO_J14]
        elif name == "49":
            picked = self.vertex_joint_selector.extra_joints_idxs
            one_hot = torch.zeros(len(picked), len(self.v_template)).to(self.v_template)
            one_hot[torch.arange(len(picked)), picked] = 1
            regressor = torch.cat((one_hot, self.J_regressor_extra))
        return bases_of(
            self.v_template,
            self.shapedirs,
            self.posedirs,
            self.lbs_weights,
            self.J_regressor,
            regressor,
            whole=name == "mesh",
        )

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> SMPL:
        self._cache.clear()  # the bases would stay behind on the old device or in the old precision
        super()._apply(fn, recurse)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._cache.clear()

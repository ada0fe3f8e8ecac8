"""Linear blend skinning of a few chosen vertices: what joints and landmarks need, without the other thousands."""

from __future__ import annotations

import numpy as np
import torch

from lib.models.body import BodyData


class SubsetSkinner:
    """Poses the 24 joints and a subset of the vertices of a body (SMPL, Loper et al. 2015, eq. 2-9).

    Args:
        body: the body model.
        vertex_ids: (S,) vertex numbers.
    """

    def __init__(self, body: BodyData, vertex_ids: np.ndarray) -> None:
        ids = np.asarray(vertex_ids, np.int64)

        def tensor(array: np.ndarray) -> torch.Tensor:
            return torch.as_tensor(np.ascontiguousarray(array, np.float32))

        self.vertex_ids = ids
        self.parents = [int(p) for p in body.parents]
        self.joint_template = tensor(body.J_regressor @ body.v_template)
        self.joint_shapedirs = tensor(np.einsum("jv,vck->jck", body.J_regressor, body.shapedirs))
        self.template = tensor(body.v_template[ids])
        self.shapedirs = tensor(body.shapedirs[ids])
        self.posedirs = tensor(body.posedirs[ids].reshape(len(ids) * 3, -1).T)
        self.weights = tensor(body.weights[ids])

    def __call__(self, rotmat: torch.Tensor, betas: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Pose the body.

        Args:
            rotmat: (n, 24, 3, 3) joint rotations, the first one global.
            betas: (n, 10).

        Returns:
            joints (n, 24, 3) and vertices (n, S, 3) in metres, without translation.
        """
        n, subset = len(rotmat), len(self.vertex_ids)
        rest = self.joint_template + torch.einsum("jck,nk->njc", self.joint_shapedirs, betas)
        globals_, positions = [rotmat[:, 0]], [rest[:, 0]]
        for joint in range(1, 24):
            parent = self.parents[joint]
            bone = (rest[:, joint] - rest[:, parent]).unsqueeze(-1)
            globals_.append(globals_[parent] @ rotmat[:, joint])
            positions.append(positions[parent] + (globals_[parent] @ bone).squeeze(-1))
        rotation, joints = torch.stack(globals_, 1), torch.stack(positions, 1)
        offset = joints - (rotation @ rest.unsqueeze(-1)).squeeze(-1)
        pose_feature = (rotmat[:, 1:] - torch.eye(3)).reshape(n, 207)
        shaped = self.template + torch.einsum("vck,nk->nvc", self.shapedirs, betas)
        shaped = shaped + (pose_feature @ self.posedirs).view(n, subset, 3)
        transform = torch.cat([rotation.reshape(n, 24, 9), offset], 2)
        blended = torch.einsum("vj,njk->nvk", self.weights, transform)
        turn, move = blended[..., :9].view(n, subset, 3, 3), blended[..., 9:]
        return joints, (turn @ shaped.unsqueeze(-1)).squeeze(-1) + move

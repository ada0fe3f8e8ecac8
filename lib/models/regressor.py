"""SPIN's iterative regressor: image feature to body pose, shape and camera (Kolotouros et al., ICCV 2019)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ..utils.geometry import project, rot6d_to_rotmat, rotmat_to_axis_angle
from ..utils.keypoints import H36M_TO_J14
from .body import BodyData
from .smpl import SMPL

POSE_SIZE, SHAPE_SIZE, CAM_SIZE = 144, 10, 3
STATE = [POSE_SIZE, SHAPE_SIZE, CAM_SIZE]
STATE_SIZE = sum(STATE)
N_ITER = 3


class Regressor(nn.Module):
    """Refine pose, shape and camera from a mean state, three times by the same layers.

    Args:
        body: the body model; its mean pose, shape and camera are the initial state.
        feature_size: F, numbers per feature.
        hidden_size: width of the two hidden layers. There is no activation between them.
        dropout: probability in training mode.
    """

    init_pose: Tensor
    init_shape: Tensor
    init_cam: Tensor

    def __init__(
        self, body: BodyData, feature_size: int = 2048, hidden_size: int = 1024, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.feature_size = feature_size
        self.fc1 = nn.Linear(feature_size + STATE_SIZE, hidden_size)
        self.drop1 = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden_size, hidden_size)
        self.drop2 = nn.Dropout(dropout)
        self.decpose = nn.Linear(hidden_size, POSE_SIZE)
        self.decshape = nn.Linear(hidden_size, SHAPE_SIZE)
        self.deccam = nn.Linear(hidden_size, CAM_SIZE)
        for decoder in (self.decpose, self.decshape, self.deccam):
            nn.init.xavier_uniform_(decoder.weight, gain=0.01)
        self.smpl = SMPL(body)
        self.register_buffer("init_pose", torch.from_numpy(body.mean_pose).clone()[None])
        self.register_buffer("init_shape", torch.from_numpy(body.mean_shape).clone()[None])
        self.register_buffer("init_cam", torch.from_numpy(body.mean_cam).clone()[None])

    def forward(
        self,
        x: Float[Tensor, "n f"],
        init_pose: Float[Tensor, "n 144"] | None = None,
        init_shape: Float[Tensor, "n 10"] | None = None,
        init_cam: Float[Tensor, "n 3"] | None = None,
        n_iter: int = N_ITER,
        J_regressor: Float[Tensor, "17 v"] | None = None,
        return_verts: bool = True,
    ) -> list[dict[str, Tensor]]:
        """Regress bodies from features.

        Args:
            init_pose, init_shape, init_cam: initial state instead of the mean.
            n_iter: number of refinements.
            J_regressor: to replace the 49 joints by the 14 evaluation joints.
            return_verts: False leaves out ``verts`` and saves most of the body model's time.

        Returns:
            a list of one dict: ``theta`` (n, 85) = camera 3, axis-angle pose 72, betas 10; ``verts``
            (n, 6890, 3) and ``kp_3d`` (n, J, 3) in metres; ``kp_2d`` (n, J, 2) in [-1, 1] of the crop;
            ``rotmat`` (n, 24, 3, 3).
        """
        n = len(x)
        pose = self.init_pose.expand(n, -1) if init_pose is None else init_pose
        shape = self.init_shape.expand(n, -1) if init_shape is None else init_shape
        cam = self.init_cam.expand(n, -1) if init_cam is None else init_cam
        from_feature, from_state = torch.split(self.fc1.weight, [self.feature_size, STATE_SIZE], dim=1)
        feature = functional.linear(x, from_feature, self.fc1.bias)  # the same in every refinement
        for _ in range(n_iter):
            state = torch.cat((pose, shape, cam), dim=1)
            hidden = self.drop1(feature + functional.linear(state, from_state))
            hidden = self.drop2(self.fc2(hidden))
            pose = pose + self.decpose(hidden)
            shape = shape + self.decshape(hidden)
            cam = cam + self.deccam(hidden)

        return [self.body_of(pose, shape, cam, J_regressor, return_verts)]

    def body_of(
        self,
        pose: Float[Tensor, "n 144"],
        shape: Float[Tensor, "n 10"],
        cam: Float[Tensor, "n 3"],
        J_regressor: Float[Tensor, "17 v"] | None = None,
        return_verts: bool = True,
    ) -> dict[str, Tensor]:
        """The output of :meth:`forward` for a final state."""
        with torch.autocast(pose.device.type, enabled=False):  # reduced precision would cost millimetres
            pose, shape, cam = (value.to(self.init_cam.dtype) for value in (pose, shape, cam))
            rotmat = rot6d_to_rotmat(pose.reshape(-1, 24, 6))
            output = {"theta": torch.cat((cam, rotmat_to_axis_angle(rotmat).flatten(1), shape), dim=1)}
            if return_verts:
                posed = self.smpl(
                    betas=shape, body_pose=rotmat[:, 1:], global_orient=rotmat[:, :1], pose2rot=False
                )
                output["verts"] = posed.vertices
                joints = posed.joints
                if J_regressor is not None:
                    joints = (J_regressor @ posed.vertices)[:, H36M_TO_J14]
            else:
                joints = self.smpl.joints(shape, rotmat, J_regressor)
            output["kp_2d"] = project(joints, cam)
            output["kp_3d"] = joints
            output["rotmat"] = rotmat
        return output

    def as_affine(self) -> tuple[Float[Tensor, "157 f"], Float[Tensor, " 157"]]:
        """``matrix`` and ``offset``: the final state, pose then shape then camera, is
        ``x @ matrix.T + offset`` of a feature x.

        There is no activation in the network, so without dropout the three refinements from the mean state
        are one affine map.
        """
        decoders = self.decpose, self.decshape, self.deccam
        decode = torch.cat([decoder.weight for decoder in decoders]) @ self.fc2.weight
        offset = torch.cat([decoder(self.fc2(self.fc1.bias)) for decoder in decoders])
        from_feature, from_state = torch.split(
            decode @ self.fc1.weight, [self.feature_size, STATE_SIZE], dim=1
        )
        matrix = torch.zeros_like(from_feature)
        state = self._mean()
        for _ in range(N_ITER):
            matrix = matrix + from_feature + from_state @ matrix
            state = state + from_state @ state + offset
        return matrix, state

    def as_affine_of_start(
        self,
    ) -> tuple[Float[Tensor, "157 f"], Float[Tensor, "157 157"], Float[Tensor, " 157"]]:
        """``matrix``, ``carry`` and ``offset``: the same from another initial state s than the mean,
        ``x @ matrix.T + s @ carry.T + offset``."""
        matrix, state = self.as_affine()
        decode = torch.cat([decoder.weight for decoder in (self.decpose, self.decshape, self.deccam)])
        from_state = decode @ self.fc2.weight @ self.fc1.weight[:, self.feature_size :]
        once = torch.eye(STATE_SIZE).to(from_state) + from_state
        carry = torch.linalg.matrix_power(once, N_ITER)
        return matrix, carry, state - carry @ self._mean()

    def _mean(self) -> Tensor:
        return torch.cat((self.init_pose, self.init_shape, self.init_cam), dim=1)[0]

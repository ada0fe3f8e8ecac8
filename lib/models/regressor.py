"""SPIN's iterative regressor: image feature to body pose, shape and camera (Kolotouros et al., ICCV 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lib.models.body import BodyData
from lib.models.smpl import SMPL
from lib.utils.geometry import project, rot6d_to_rotmat, rotmat_to_axis_angle
from lib.utils.keypoints import H36M_TO_J14

POSE_SIZE, SHAPE_SIZE, CAM_SIZE = 144, 10, 3


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
        self.fc1 = nn.Linear(feature_size + POSE_SIZE + SHAPE_SIZE + CAM_SIZE, hidden_size)
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
        x: Tensor,
        init_pose: Tensor | None = None,
        init_shape: Tensor | None = None,
        init_cam: Tensor | None = None,
        n_iter: int = 3,
        J_regressor: Tensor | None = None,
        return_verts: bool = True,
    ) -> list[dict[str, Tensor]]:
        """Regress bodies from features (n, F).

        Args:
            x: features (n, F).
            init_pose, init_shape, init_cam: initial state (n, 144), (n, 10), (n, 3) instead of the mean.
            n_iter: number of refinements.
            J_regressor: (17, 6890), to replace the 49 joints by the 14 evaluation joints.
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
        for _ in range(n_iter):
            hidden = self.drop1(self.fc1(torch.cat((x, pose, shape, cam), dim=1)))
            hidden = self.drop2(self.fc2(hidden))
            pose = pose + self.decpose(hidden)
            shape = shape + self.decshape(hidden)
            cam = cam + self.deccam(hidden)

        rotmat = rot6d_to_rotmat(pose.reshape(n, 24, 6))
        output = {"theta": torch.cat((cam, rotmat_to_axis_angle(rotmat).flatten(1), shape), dim=1)}
        if return_verts:
            posed = self.smpl(
                betas=shape, body_pose=rotmat[:, 1:], global_orient=rotmat[:, :1], pose2rot=False
            )
            output["verts"] = posed.vertices
            joints = posed.joints if J_regressor is None else (J_regressor @ posed.vertices)[:, H36M_TO_J14]
        else:
            joints = self.smpl.joints(shape, rotmat, J_regressor)
        output["kp_2d"] = project(joints, cam)
        output["kp_3d"] = joints
        output["rotmat"] = rotmat
        return [output]

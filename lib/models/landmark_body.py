"""The 33 landmarks and the 49 joints of a posed body, without its mesh."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from smplx.vertex_ids import vertex_ids
from smplx.vertex_joint_selector import VertexJointSelector
from torch import Tensor, nn

from ..utils.keypoints import SMPL49_MAP
from .body import BodyData

_N_JOINTS = 24


class LandmarkBody(nn.Module):
    """The joints and landmarks that the skinned mesh would give, from one chain of rotations and few points.

    A point that is a weighted sum of skinned vertices is a sum over bones of ``R_k c_k + m_k o_k``: of its
    share of the rest vertices that hang on bone k, linear in shape and pose, and of their weight. There are
    fewer than a hundred such (point, bone) pairs, so this costs a few microseconds per pose and gradients
    little more.

    Args:
        body: the body model; buffers are float32 and follow ``.to(device)``.
    """

    joint_template: Tensor
    joint_shapedirs: Tensor
    template: Tensor
    blend: Tensor
    bone_of_pair: Tensor
    pair_sum: Tensor
    mass: Tensor
    landmark_joints: Tensor
    joint_map: Tensor
    skin_pairs: Tensor
    pair_mass: Tensor
    part_joints: Tensor
    part_mass: Tensor
    part_sum: Tensor
    turned_landmark: Tensor
    turned_joint: Tensor
    turned_frame: Tensor
    turned_mass: Tensor

    def __init__(self, body: BodyData) -> None:
        super().__init__()
        joint_weights, vertex_weights = _landmark_weights(_face_vertices(body), len(body.v_template))
        chosen = VertexJointSelector(vertex_ids=vertex_ids["smplh"]).extra_joints_idxs.numpy()
        picked = np.zeros((len(chosen), len(body.v_template)), np.float32)
        picked[np.arange(len(chosen)), chosen] = 1
        regressor = np.concatenate((picked, body.J_regressor_extra, vertex_weights)).astype(np.float64)
        points, bones = np.nonzero(np.abs(regressor) @ (body.weights > 0))
        shares = regressor[points] * body.weights.T[bones]  # (P, V)
        posedirs = body.posedirs.transpose(2, 0, 1)  # (207, V, 3)
        bases = np.concatenate((body.shapedirs.transpose(2, 0, 1), posedirs)).astype(np.float64)
        used = shares.any(0)
        blend = np.einsum("pv,kvc->kcp", shares[:, used], bases[:, used])
        mass = np.zeros((len(regressor), _N_JOINTS))
        mass[points, bones] = shares.sum(1)
        pair_sum = np.zeros((len(points), len(regressor)))
        pair_sum[np.arange(len(points)), points] = 1

        self._split = len(picked) + len(body.J_regressor_extra)
        self._levels = _levels(body.parents)
        buffers = {
            "joint_template": body.J_regressor @ body.v_template,
            "joint_shapedirs": np.einsum("jv,vck->kjc", body.J_regressor, body.shapedirs).reshape(10, -1),
            "template": (shares @ body.v_template).T.reshape(-1),
            "blend": blend.reshape(len(bases), -1),
            "mass": mass.T,
            "pair_sum": pair_sum,
            "landmark_joints": joint_weights.T,
        }
        for name, value in buffers.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(value, np.float32)))
        self.register_buffer("bone_of_pair", torch.from_numpy(bones))
        self.register_buffer("joint_map", torch.tensor(SMPL49_MAP))
        self._prepare_jacobian(body.parents, points - self._split, bones, mass[points, bones], joint_weights)

    def _prepare_jacobian(
        self,
        parents: np.ndarray,
        landmark: np.ndarray,
        bones: np.ndarray,
        mass: np.ndarray,
        joints: np.ndarray,
    ) -> None:
        """Landmarks as sums of parts that hang on a bone: pairs on the skin, and joints, which hang on the
        bone before them. Every joint at or above that bone turns the part about itself."""
        skin = np.flatnonzero(landmark >= 0)
        row, joint = np.nonzero(joints)
        parts = [*zip(landmark[skin], bones[skin], mass[skin]), *zip(row, parents[joint], joints[row, joint])]
        turned: dict[tuple[int, int], int] = {}
        sums: list[tuple[int, int]] = []
        for number, (point, bone, _) in enumerate(parts):
            while bone >= 0:
                sums.append((number, turned.setdefault((int(point), int(bone)), len(turned))))
                bone = parents[bone]
        part_sum = np.zeros((len(parts), len(turned)), np.float32)
        part_sum[tuple(np.transpose(sums))] = 1
        points, turning = np.transpose(list(turned))
        part_mass = np.array([weight for _, _, weight in parts])
        for name, value in {
            "skin_pairs": skin,
            "part_joints": joint,
            "turned_landmark": points,
            "turned_joint": turning,
            "turned_frame": parents[turning] + 1,  # 0 is the camera's frame, which turns the root
        }.items():
            self.register_buffer(name, torch.from_numpy(np.asarray(value, np.int64)))
        for name, value in {
            "pair_mass": part_mass[: len(skin)],
            "part_mass": part_mass[len(skin) :],
            "part_sum": part_sum,
            "turned_mass": part_mass @ part_sum,
        }.items():
            self.register_buffer(name, torch.from_numpy(np.asarray(value, np.float32)))

    def forward(
        self, rotmat: Float[Tensor, "n 24 3 3"], betas: Float[Tensor, "#n 10"]
    ) -> tuple[Float[Tensor, "n 49 3"], Float[Tensor, "n 33 3"]]:
        """Joints and landmarks of rotations and shapes, or one shape for all; metres."""
        _, joints, turned, offset = self._pose(rotmat, betas)
        points = turned @ self.pair_sum + offset @ self.mass  # (n, 3, Q)
        pool = torch.cat((joints, points[..., : self._split]), 2)
        landmarks = joints @ self.landmark_joints + points[..., self._split :]
        return pool[..., self.joint_map].transpose(1, 2), landmarks.transpose(1, 2)

    def rest_pelvis(self, betas: Float[Tensor, "n 10"]) -> Float[Tensor, "n 3"]:
        """Joint 0 of the rest pose of shapes, metres."""
        return (betas @ self.joint_shapedirs).view(-1, _N_JOINTS, 3)[:, 0] + self.joint_template[0]

    @torch.no_grad()
    def jacobian(
        self, rotmat: Float[Tensor, "n 24 3 3"], betas: Float[Tensor, "#n 10"]
    ) -> Float[Tensor, "n 33 3 24 3"]:
        """How the landmarks follow small turns of the joints, metres per radian.

        A turn d of joint j takes its rotation R_j to exp(d) R_j. What poses do to the shape of the skin is
        left out: it moves the landmarks on the skin by little.
        """
        rotation, joints, turned, offset = self._pose(rotmat, betas)
        skin = self.skin_pairs
        hung = turned[..., skin] + offset[..., self.bone_of_pair[skin]] * self.pair_mass
        parts = torch.cat((hung, joints[..., self.part_joints] * self.part_mass), 2)
        arms = parts @ self.part_sum - joints[..., self.turned_joint] * self.turned_mass  # (n, 3, A)
        frames = torch.cat((torch.eye(3).to(rotation).expand(len(rotmat), 3, 3)[..., None], rotation), 3)
        axes = frames[..., self.turned_frame]  # (n, 3, 3, A): columns are the axes of turns
        moves = torch.linalg.cross(axes, arms[:, :, None].expand_as(axes), dim=1)
        result = rotmat.new_zeros(len(rotmat), 33, 3, _N_JOINTS, 3)
        result[:, self.turned_landmark, :, self.turned_joint] = moves.permute(3, 0, 1, 2)
        return result

    def _pose(self, rotmat: Tensor, betas: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Global rotations (n, 3, 3, 24), joints (n, 3, 24), the pairs' rotated shares (n, 3, P) and the
        bones' offsets (n, 3, 24)."""
        n = len(rotmat)
        rest = (betas @ self.joint_shapedirs).view(-1, _N_JOINTS, 3) + self.joint_template
        rotations, joints = self._chain(rotmat, rest)  # (24, n, 3, 3), (24, n, 3)
        rotation, joints = rotations.permute(1, 2, 3, 0), joints.permute(1, 2, 0)
        offset = joints - (rotation * rest.transpose(1, 2)[:, None]).sum(2)
        pose_feature = (rotmat[:, 1:] - torch.eye(3, dtype=rotmat.dtype, device=rotmat.device)).flatten(1)
        shaped = betas @ self.blend[:10] + self.template
        posed = (shaped + pose_feature @ self.blend[10:]).view(n, 3, -1)
        turned = (rotation.index_select(3, self.bone_of_pair) * posed[:, None]).sum(2)
        return rotation, joints, turned, offset

    def _chain(self, rotmat: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        """Global rotations (24, n, 3, 3) and joint positions (24, n, 3) along the kinematic tree."""
        local, rest = rotmat.transpose(0, 1), rest.transpose(0, 1)
        turns, places = local[:1], rest[:1].expand(1, len(rotmat), 3)
        rotations, positions = [turns], [places]
        for joints, parents, parents_in_level in self._levels:
            bones = rest[joints] - rest[parents]
            before = turns[parents_in_level]
            places = places[parents_in_level] + (before @ bones[..., None])[..., 0]
            turns = before @ local[joints]
            rotations.append(turns)
            positions.append(places)
        order = self._order
        return torch.cat(rotations)[order], torch.cat(positions)[order]

    @property
    def _order(self) -> list[int]:
        listed = [0, *(joint for joints, _, _ in self._levels for joint in joints)]
        return [listed.index(joint) for joint in range(_N_JOINTS)]


def _levels(parents: np.ndarray) -> list[tuple[list[int], list[int], list[int]]]:
    """Joints of equal distance from the root, their parents, and the parents' places one level up."""
    levels: list[tuple[list[int], list[int], list[int]]] = []
    above = [0]
    while True:
        joints = [j for j, parent in enumerate(parents.tolist()) if parent in above and j > 0]
        if not joints:
            return levels
        parent_joints = [int(parents[j]) for j in joints]
        levels.append((joints, parent_joints, [above.index(p) for p in parent_joints]))
        above = joints


def _face_vertices(body: BodyData) -> dict[str, int]:
    """Eye corners and mouth corners: the front-most head vertices near where a face has them."""
    template = body.v_template
    nose, left_eye, right_eye = template[332], template[2800], template[6260]

    def front(x: float, y: float) -> int:
        near = np.flatnonzero(np.hypot(template[:, 0] - x, template[:, 1] - y) < 0.012)
        return int(near[template[near, 2].argmax()])

    return {
        "left eye inner": front(0.6 * left_eye[0], left_eye[1]),
        "left eye outer": front(1.4 * left_eye[0], left_eye[1]),
        "right eye inner": front(0.6 * right_eye[0], right_eye[1]),
        "right eye outer": front(1.4 * right_eye[0], right_eye[1]),
        "mouth left": front(0.025, nose[1] - 0.042),
        "mouth right": front(-0.025, nose[1] - 0.042),
    }


def _landmark_weights(face: dict[str, int], vertices: int) -> tuple[np.ndarray, np.ndarray]:
    """(33, 24) and (33, vertices): how BlazePose landmarks mix joints and vertices."""
    of_joints, of_vertices = np.zeros((33, 24), np.float32), np.zeros((33, vertices), np.float32)
    for row, name in (
        (1, "left eye inner"),
        (3, "left eye outer"),
        (4, "right eye inner"),
        (6, "right eye outer"),
        (9, "mouth left"),
        (10, "mouth right"),
    ):
        of_vertices[row, face[name]] = 1
    for row, vertex in ((0, 332), (2, 2800), (5, 6260), (7, 583), (8, 4071), (29, 3387), (30, 6787)):
        of_vertices[row, vertex] = 1
    for row, joint in zip(
        (11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28), (16, 17, 18, 19, 20, 21, 1, 2, 4, 5, 7, 8)
    ):
        of_joints[row, joint] = 1
    for row, wrist, tip, share in (
        (17, 20, 2673, 0.5),
        (18, 21, 6133, 0.5),
        (19, 20, 2319, 0.5),
        (20, 21, 5782, 0.5),
        (21, 20, 2746, 0.6),
        (22, 21, 6191, 0.6),
    ):
        of_joints[row, wrist], of_vertices[row, tip] = 1 - share, share
    for row, big, small in ((31, 3216, 3226), (32, 6617, 6624)):
        of_vertices[row, big], of_vertices[row, small] = 0.75, 0.25
    return of_joints, of_vertices

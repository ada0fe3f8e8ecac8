"""Linear blend skinning of SMPL (Loper et al. 2015): pure functions, for any vertices."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

N_JOINTS = 24
_BLOCK, _BLOCK_VERTICES = 16, 2000  # whole meshes skinned at once on a CPU: what its caches hold


class Bases(NamedTuple):
    """Rest shape, blend shapes and weights of v chosen vertices, in planes: x of all, y of all, z of all."""

    template: Float[Tensor, " 3*v"]
    blend: Float[Tensor, "217 3*v"]  # 10 of shape, then 207 of pose
    weights: Float[Tensor, "24 v"]
    joint_template: Float[Tensor, " 72"]
    joint_shapedirs: Float[Tensor, "10 72"]
    regressor: Float[Tensor, "r v"]  # vertices to joints


def bases_of(
    v_template: Float[Tensor, "v 3"],
    shapedirs: Float[Tensor, "v 3 10"],
    posedirs: Float[Tensor, "207 3*v"],
    weights: Float[Tensor, "v 24"],
    J_regressor: Float[Tensor, "24 v"],
    regressor: Float[Tensor, "r v"],
    *,
    whole: bool,
) -> Bases:
    """Bases of the whole mesh, or only of the vertices that ``regressor`` reads."""
    chosen: Tensor | slice = slice(None)
    if not whole:
        chosen = regressor.any(dim=0).nonzero()[:, 0]
        regressor = regressor[:, chosen].contiguous()
    of_pose = posedirs.view(-1, len(v_template), 3)[:, chosen]
    blend = torch.cat((shapedirs[chosen].permute(2, 1, 0), of_pose.transpose(1, 2)))
    return Bases(
        template=v_template[chosen].T.flatten(),
        blend=blend.flatten(1).contiguous(),
        weights=weights[chosen].T.contiguous(),
        joint_template=(J_regressor @ v_template).flatten(),
        joint_shapedirs=torch.einsum("jv,vck->kjc", J_regressor, shapedirs).flatten(1).contiguous(),
        regressor=regressor,
    )


def skin(
    betas: Float[Tensor, "n 10"], rotmat: Float[Tensor, "n 24 3 3"], bases: Bases, parents: list[int]
) -> tuple[Float[Tensor, "n v 3"], Float[Tensor, "n 24 3"]]:
    """Vertices and posed joints, metres; ``parents`` of the joints, of which the first is the root."""
    n, n_vertices = len(rotmat), bases.weights.shape[1]
    if n > _BLOCK and n_vertices > _BLOCK_VERTICES and not (rotmat.is_cuda or torch.is_grad_enabled()):
        blocks = zip(torch.split(betas, _BLOCK), torch.split(rotmat, _BLOCK))
        skinned = [skin(*block, bases, parents) for block in blocks]
        return torch.cat([part[0] for part in skinned]), torch.cat([part[1] for part in skinned])
    rest = torch.addmm(bases.joint_template, betas, bases.joint_shapedirs).view(n, N_JOINTS, 3)
    rotation, joints = chain(rotmat, rest, parents)
    offset = joints - (rotation @ rest[..., None])[..., 0]

    pose_feature = (rotmat[:, 1:] - torch.eye(3, dtype=rotmat.dtype, device=rotmat.device)).flatten(1)
    coefficients = torch.cat((betas, pose_feature), dim=1)
    posed = torch.addmm(bases.template, coefficients, bases.blend).view(n, 3, n_vertices)

    # One transform per vertex as 3x4 planes of V numbers: a single product, then plain multiply-adds.
    transform = torch.cat((rotation, offset[..., None]), dim=-1).permute(0, 2, 3, 1)
    transform = (transform.reshape(n * 12, N_JOINTS) @ bases.weights).view(n, 3, 4, n_vertices)
    vertices = transform[:, :, 3]
    for axis in range(3):
        vertices = torch.addcmul(vertices, transform[:, :, axis], posed[:, axis : axis + 1])
    return vertices.transpose(1, 2).contiguous(), joints


def chain(
    rotmat: Float[Tensor, "n j 3 3"], rest: Float[Tensor, "n j 3"], parents: list[int]
) -> tuple[Float[Tensor, "n j 3 3"], Float[Tensor, "n j 3"]]:
    """Global rotations and positions of joints that rest at ``rest`` and turn against their parents."""
    rotations, positions = [rotmat[:, 0]], [rest[:, 0]]
    for joint, parent in enumerate(parents[1:], start=1):
        bone = rest[:, joint] - rest[:, parent]
        rotations.append(rotations[parent] @ rotmat[:, joint])
        positions.append(positions[parent] + (rotations[parent] @ bone[..., None])[..., 0])
    return torch.stack(rotations, 1), torch.stack(positions, 1)

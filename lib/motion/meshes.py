"""The bodies of a motion: meshes and joints, posed in blocks when they are asked for."""

from __future__ import annotations

from functools import lru_cache
from threading import Lock

import numpy as np
import torch
from jaxtyping import Float

from ..models.smpl import SMPL
from .motion import Placed

_BLOCK, _JOINTS_AT_ONCE = 32, 2048


class Meshes:
    """The vertices of one person's frames, posed when they are asked for, so that a long video does not fill
    the memory: 80 kB per frame and person. Threads may share it.

    Args:
        smpl: the body, on the device to use.
        placed: the poses. betas: one shape, or one per frame.
    """

    def __init__(self, smpl: SMPL, placed: Placed, betas: Float[np.ndarray, "*n 10"]) -> None:
        self._smpl, self._placed = smpl, placed
        self._betas = np.broadcast_to(betas, (len(placed.rotmat), 10))
        # Two blocks, because frames that are drawn at the same time may lie on both sides of a border.
        self._block = lru_cache(maxsize=2)(self._pose)
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._betas)

    def __getitem__(self, row: int) -> Float[np.ndarray, "v 3"]:
        """Metres, in the frame of reference of ``placed``."""
        start = row - row % _BLOCK
        with self._lock:
            vertices: np.ndarray = self._block(start)[row - start]
        return vertices

    def all(self) -> Float[np.ndarray, "t v 3"]:
        """The meshes of all frames."""
        return np.concatenate([self._pose(start) for start in range(0, len(self), _BLOCK)])

    @torch.inference_mode()
    def joints(self) -> Float[np.ndarray, "t 49 3"]:
        """SPIN's 49 joints, metres, in the frame of reference of ``placed``."""
        device, parts = self._smpl.v_template.device, []
        for start in range(0, len(self), _JOINTS_AT_ONCE):
            rows = slice(start, start + _JOINTS_AT_ONCE)
            betas, rotmat = (
                torch.from_numpy(np.array(values[rows], np.float32)).to(device)
                for values in (self._betas, self._placed.rotmat)
            )
            parts.append(self._smpl.joints(betas, rotmat).cpu().numpy() + self._placed.transl[rows, None])
        return np.concatenate(parts)

    @torch.inference_mode()
    def _pose(self, start: int) -> Float[np.ndarray, "n v 3"]:
        device, rows = self._smpl.v_template.device, slice(start, start + _BLOCK)
        rotmat, betas, transl = (
            torch.from_numpy(np.array(values[rows], np.float32)).to(device)
            for values in (self._placed.rotmat, self._betas, self._placed.transl)
        )
        posed = self._smpl(
            betas=betas,
            body_pose=rotmat[:, 1:],
            global_orient=rotmat[:, :1],
            transl=transl,
            pose2rot=False,
        )
        vertices: np.ndarray = posed.vertices.cpu().numpy()
        return vertices

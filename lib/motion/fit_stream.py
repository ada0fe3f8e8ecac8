"""The fit of a stream: each frame when it comes."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from ..models.landmark_body import LandmarkBody
from .fit import TrackFit, usable_frames
from .fit_energy import DEFAULTS, TURNS, FitOptions
from .fit_solver import minimise

_WINDOW = 6  # frames that a stream is fitted by


class StreamingFit:
    """The fit of a stream: each frame when it comes.

    One step of Gauss and Newton's method moves it and the few frames before it, beginning where these were
    before. The constants of a track are not fitted: the shape is given.

    Args:
        body, width, height, fps, focal, options: see :func:`lib.motion.fit.fit_track`; TCMR's rotations are
            not smoothed.
    """

    def __init__(
        self,
        body: LandmarkBody,
        *,
        width: int,
        height: int,
        fps: float,
        focal: float,
        options: FitOptions = DEFAULTS,
    ) -> None:
        self._body, self._fps, self._options = body, fps, replace(options, smooth=0)
        self._lens = focal, width / 2, height / 2
        self._seen: deque[tuple[np.ndarray, ...]] = deque(maxlen=_WINDOW)
        self._states = np.zeros((0, TURNS + 3), np.float32)

    def __call__(
        self,
        rotmat: Float[np.ndarray, "24 3 3"],
        guess: Float[np.ndarray, " 3"],
        betas: Float[np.ndarray, " 10"],
        side: float | np.floating,
        landmarks: tuple[Float[np.ndarray, "33 2"], Float[np.ndarray, " 33"], Float[np.ndarray, "33 3"]],
    ) -> tuple[Float[np.ndarray, "24 3 3"], Float[np.ndarray, " 3"]]:
        """Fit the next frame.

        Args:
            rotmat: TCMR's. guess: translation, metres. betas: the shape.
            side: of the person's box, px.
            landmarks: xy in px, visibility, world in metres, flips undone.

        Returns:
            rotations and translation in metres, float32.
        """
        self._seen.append((rotmat, guess, np.array(side, np.float32), *landmarks))
        rotmats, guesses, sides, xy, visibility, world = (np.stack(values) for values in zip(*self._seen))
        track = TrackFit(
            self._body,
            rotmats,
            betas[None],
            guesses,
            sides,
            (xy, visibility, world),
            usable_frames(visibility),
            self._lens,
            self._fps,
            self._options,
        )
        energy, shared = track.energy(np.array([0]), len(self._seen)), track.shared
        x = energy.start(shared)
        before = self._states[len(self._states) + 1 - len(self._seen) :]
        if len(before):
            x[0, :-1] = torch.from_numpy(before).to(x)
            x[0, -1, :TURNS] = x[0, -2, :TURNS]
        self._states = minimise(energy, x, shared, iterations=1)[0].cpu().numpy()
        fitted = track.place(self._states, shared, (0.0, 0.0))
        return fitted.rotmat[-1], fitted.transl[-1]

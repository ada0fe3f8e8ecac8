"""The methods that are compared: landmarks, networks and fit on the same repaired input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from ...landmarks.features import LIMB_JOINTS, LIMB_LANDMARKS, landmark_arrays
from ...models.body import BodyData
from ...models.extractors import check_fingerprints, fingerprint, load_landmark_net
from ...models.landmark_body import LandmarkBody
from ...models.per_frame import PerFrameEncoder
from ...models.predict import TRAINING_FPS, predict_sequence
from ...models.regressor import Regressor
from ...models.weights import load_weights, per_frame_weights
from ...motion.fit import fit_track
from ...motion.smooth import smooth_rotations
from ...utils.crops import crop_to_image
from ...utils.files import load_checkpoint
from ...utils.smoothing import gaussian
from ..build import fingerprint_of, model_from
from .videos import Estimate, Posed, Video

RAW, PER_FRAME, TCMR = "raw landmarks", "per-frame network", "TCMR"
FIT, GAUSSIAN = " + fit", " + Gaussian"
FITTED = (PER_FRAME, TCMR)


class Methods:
    """All methods on one video.

    Args:
        extractor: checkpoint of the per-frame network.
        checkpoints: TCMRs with any temporal encoder, by the row's name; several of a name are seeds.
    """

    def __init__(self, extractor: Path, checkpoints: Mapping[str, Sequence[Path]], body: BodyData) -> None:
        per_frame = load_checkpoint(extractor)
        weights = per_frame_weights(per_frame, extractor)
        self.net = load_landmark_net(extractor)
        self.regressor = Regressor(body, self.net.last.out_features, len(weights["fc1.bias"]), dropout=0.0)
        load_weights(self.regressor, weights, extractor, "smpl.", allow_more=True)
        self.bodies, self.models = LandmarkBody(body), {}
        self.facts: dict[str, dict[str, float]] = {
            PER_FRAME: {"parameters": _count(self.net, self.regressor)}
        }
        if "seconds" in per_frame:
            self.facts[PER_FRAME]["training_seconds"] = float(per_frame["seconds"])
        for name, paths in checkpoints.items():
            loaded = {path: load_checkpoint(path) for path in paths}
            found = {str(path): fingerprint_of(trained) for path, trained in loaded.items()}
            check_fingerprints({str(extractor): fingerprint(weights), **found})
            self.models[name] = [model_from(trained, path, None, body)[0] for path, trained in loaded.items()]
            times = [float(t["training"]["seconds"]) for t in loaded.values() if "training" in t]
            first = self.models[name][0]
            self.facts[name] = {"parameters": _count(self.net, first.encoder, first.regressor)}
            if len(times) == len(paths):
                self.facts[name]["training_seconds"] = float(np.mean(times))

    @property
    def frame_by_frame(self) -> list[str]:
        """The rows that see each frame alone."""
        trained = [
            name for name, seeds in self.models.items() if isinstance(seeds[0].encoder, PerFrameEncoder)
        ]
        return [RAW, PER_FRAME, *trained]

    def __call__(self, video: Video) -> dict[str, list[Estimate]]:
        """Row -> its estimates, one for each seed."""
        xy, _, world = video.landmarks
        rows = {RAW: [Estimate(world[:, LIMB_LANDMARKS], xy[:, LIMB_LANDMARKS])]}
        vectors, boxes = landmark_arrays(*video.landmarks)
        with torch.inference_mode():
            features = self.net(vectors)
            frame = self.regressor(features, return_verts=False)[0]
        outputs = {PER_FRAME: [{key: value.numpy() for key, value in frame.items()}]}
        for name, models in self.models.items():
            outputs[name] = [
                predict_sequence(model, features.numpy(), return_verts=False, step=video.step)
                for model in models
            ]
        for name, seeds in outputs.items():
            rows[name] = [self._body(out, boxes) for out in seeds]
            if name in FITTED:
                rows[name + FIT] = [self._fitted(out, boxes, video) for out in seeds]
        return rows

    def _body(self, out: Mapping[str, np.ndarray], boxes: np.ndarray) -> Estimate:
        pixels = crop_to_image(out["kp_2d"], boxes)[:, LIMB_JOINTS]
        joints, betas = out["kp_3d"][:, LIMB_JOINTS], out["theta"][:, 75:]
        return Estimate(joints, pixels, Posed(out["rotmat"], betas), out.get("scores"))

    def _fitted(self, out: Mapping[str, np.ndarray], boxes: np.ndarray, video: Video) -> Estimate:
        width, height = video.image_size
        fitted = fit_track(
            self.bodies, out["rotmat"], out["theta"], boxes, video.landmarks,
            width=width, height=height, fps=video.fps,
        )  # fmt: skip
        if fitted is None:
            return self._body(out, boxes)
        posed = Posed(fitted.rotmat, np.tile(fitted.betas, (len(boxes), 1)))
        return Estimate(fitted.joints3d[:, LIMB_JOINTS], fitted.joints2d[:, LIMB_JOINTS], posed)

    def smoothed(self, estimate: Estimate, width: float, fps: float) -> Estimate:
        """After a Gaussian of ``width`` frames at 30 fps: over a body's rotations and shape, so that it stays
        one; over points where there is none."""
        sigma = width * fps / TRAINING_FPS
        if sigma == 0:
            return estimate
        pixels = gaussian(estimate.pixels, sigma)
        if estimate.body is None:
            return Estimate(gaussian(estimate.joints, sigma), pixels)
        rotmat = smooth_rotations(estimate.body.rotmat, sigma)
        betas = gaussian(estimate.body.betas, sigma).astype(np.float32)
        with torch.inference_mode():
            joints = self.bodies(torch.from_numpy(rotmat), torch.from_numpy(betas))[0].numpy()
        return Estimate(joints[:, LIMB_JOINTS], pixels, Posed(rotmat, betas))


def _count(*parts: torch.nn.Module) -> int:
    return sum(p.numel() for part in parts for p in part.parameters() if p.requires_grad)

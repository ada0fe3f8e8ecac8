"""Static features: per frame and person, what the temporal network reads.

An extractor turns tracked persons into ``(n, F)`` features. :data:`EXTRACTORS` holds them by the names that a
configuration has in ``MODEL.EXTRACTOR``: ``spin`` (ResNet-50 on image crops, needs the SPIN checkpoint),
``landmarks`` (33 body landmarks through a small network, ships with the project), ``poses`` (per-frame SMPL
estimates of any other method), and those of plugins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, UInt8

from ..landmarks.features import landmark_arrays
from ..landmarks.flips import repair_flips
from ..utils.crops import CROP_SCALE, crop_image, normalise_crop
from ..utils.errors import UserError
from ..utils.files import load_checkpoint
from ..utils.pose_features import PEAK, POSE_FEATURE_SIZE, POSE_FINGERPRINT, track_features
from ..utils.prefetch import prefetch
from ..utils.registry import Registry
from ..utils.smoothing import gaussian
from .body import BASE_DATA, OPEN_DATA, BodyData
from .hmr import HMR, load_hmr
from .landmark_net import LandmarkNet
from .precision import check_precision, tf32
from .resnet_inference import InferenceResNet50
from .weights import per_frame_weights

SPIN_CHECKPOINT = "spin_model_checkpoint.pth.tar"
LANDMARK_CHECKPOINT = "landmark_net.pth.tar"
_CROP_BATCH = 64
_LANDMARK_BATCH = 4096
_BOX_SMOOTH = 0.2  # seconds, of the crop that follows an estimated person
_PREFIX = "extractor."
_BACKBONE = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4.")  # of SPIN's ResNet-50


def fingerprint(weights: Mapping[str, torch.Tensor]) -> str:
    """Tells extractors apart: 16 hexadecimal digits of a hash of what their features depend on.

    Args:
        weights: of the landmark network; or all of a per-frame network, of which only the extractor counts.

    Returns:
        the same for the same numbers, whatever precision they are stored in; '' if ``weights`` hold no
        extractor.
    """
    tensors = {name: weight for name, weight in weights.items() if isinstance(weight, torch.Tensor)}
    landmarks = {name.removeprefix(_PREFIX): w for name, w in tensors.items() if name.startswith(_PREFIX)}
    backbone = {name: weight for name, weight in tensors.items() if name.startswith(_BACKBONE)}
    own = landmarks or backbone or (tensors if "first.weight" in tensors else {})
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(own):
        if not name.endswith("num_batches_tracked"):  # old checkpoints lack it, and features do without
            digest.update(f"{name} {tuple(own[name].shape)}".encode())
            digest.update(own[name].detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest() if own else ""


def check_fingerprints(found: Mapping[str, str]) -> str:
    """The fingerprint that files agree in: file -> fingerprint, '' where a file does not say.

    Raises:
        UserError: two differ, so that their features do not belong together.
    """
    said = [(file, value) for file, value in found.items() if value]
    for file, value in said[1:]:
        if value != said[0][1]:
            raise UserError(
                f"features of different networks: {said[0][0]} belongs to the extractor {said[0][1]}, {file} "
                f"to {value}; make the databases anew with one network and train on them, or take network, "
                "databases and checkpoint that belong together (docs/data.md, Fingerprints)"
            )
    return said[0][1] if said else ""


@runtime_checkable
class PersonTrack(Protocol):
    """What is known of one person: ``bboxes`` are cx, cy, side, side px, unscaled.

    ``landmarks`` features need a :class:`LandmarkTrack`, ``poses`` a :class:`PoseTrack`.
    """

    @property
    def person_id(self) -> int: ...
    @property
    def frame_ids(self) -> Int[np.ndarray, " n"]: ...
    @property
    def bboxes(self) -> Float[np.ndarray, "n 4"]: ...


@runtime_checkable
class LandmarkTrack(PersonTrack, Protocol):
    """With ``xy`` in px and ``world`` in metres."""

    xy: Float[np.ndarray, "n 33 2"]
    visibility: Float[np.ndarray, "n 33"]
    world: Float[np.ndarray, "n 33 3"]


@dataclass(frozen=True, eq=False)
class PoseTrack:
    """Per-frame estimates of one person over consecutive frames; what was missing is interpolated.

    ``frame_ids`` are 0-based, without gaps; ``bboxes`` cx, cy, side, side px; ``place`` px of the body's
    origin, and px per metre; ``fps`` of the frames are a second.
    """

    person_id: int
    frame_ids: Int[np.ndarray, " n"]
    bboxes: Float[np.ndarray, "n 4"]
    seen: Bool[np.ndarray, " n"]
    rotmat: Float[np.ndarray, "n 24 3 3"]
    betas: Float[np.ndarray, "n 10"]
    place: Float[np.ndarray, "n 3"]
    fps: float

    @property
    def visibility(self) -> Float[np.ndarray, "n 1"]:
        """0 in frames that were interpolated, else 1."""
        return self.seen[:, None].astype(np.float32)


class StaticFeatures(NamedTuple):
    """``bboxes`` are the unscaled boxes that the crop camera refers to."""

    values: Float32[np.ndarray, "n f"]
    bboxes: Float[np.ndarray, "n 4"]


@runtime_checkable
class Extractor(Protocol):
    """Features of tracked persons.

    Attributes:
        name: in :data:`EXTRACTORS`.
        feature_size: F.
        fingerprint: tells what weights it has, see :func:`fingerprint`; '' if nothing is to be compared.
        needs_frames: whether it looks at the frames at all.
        fits: whether bodies are moved onto the landmarks of the tracks unless a user says otherwise: where
            these are what the features come from.
    """

    name: str
    feature_size: int
    fingerprint: str = ""
    needs_frames: bool = True
    fits: bool = False

    def __call__(
        self,
        frames: Iterable[np.ndarray],
        tracks: Sequence[PersonTrack],
        progress: Callable[[int], object] | None = None,
    ) -> list[StaticFeatures]:
        """One entry per track. ``frames``: all RGB frames from the first on, taken once, one at a time.
        ``progress(k)`` is called when k more person-frames are done."""
        ...


ExtractorFactory = Callable[[BodyData, Path, Path, torch.device, bool], Extractor]
EXTRACTORS: Registry[ExtractorFactory] = Registry("extractor", "MODEL.EXTRACTOR")
"""By name: makes an extractor with its weights, from ``(body, base_data, open_dir, device, bf16)``: the body
of the model that reads the features, the folders of the official and of the open files, where it runs, and
whether it may compute in bfloat16. It raises a UserError where files are missing."""


class SpinExtractor(Extractor):
    """SPIN's ResNet-50 on crops of 1.2 x box. A thread decodes and crops while the network runs.

    Without ``bf16`` a GPU computes in full float32, not in TensorFloat-32.

    Args:
        hmr: the network, left as it is.
        bf16: compute in bfloat16: several times faster on recent processors and GPUs; features change by
            about 0.3 % (relative norm).

    Raises:
        UserError: the processor has no bfloat16.
    """

    name = "spin"
    feature_size = 2048

    def __init__(self, hmr: HMR, device: torch.device | str = "cpu", *, bf16: bool = False) -> None:
        self.device = torch.device(device)
        if bf16:
            check_precision("bf16", self.device)
        self.fingerprint = fingerprint(hmr.state_dict())
        self._trunk = InferenceResNet50(hmr, torch.bfloat16 if bf16 else torch.float32, self.device)

    def __call__(
        self,
        frames: Iterable[np.ndarray],
        tracks: Sequence[PersonTrack],
        progress: Callable[[int], object] | None = None,
    ) -> list[StaticFeatures]:
        values = [np.zeros((len(t.frame_ids), self.feature_size), np.float32) for t in tracks]
        with prefetch(_crop_batches(frames, tracks), ahead=1) as batches:
            for crops, targets in batches:
                for (person, row), feature in zip(targets, self.features(crops)):
                    values[person][row] = feature
                if progress is not None:
                    progress(len(crops))
        return [StaticFeatures(v, t.bboxes) for v, t in zip(values, tracks)]

    @torch.inference_mode()
    def features(self, crops: UInt8[np.ndarray, "n 224 224 3"]) -> Float32[np.ndarray, "n 2048"]:
        """Features of RGB crops."""
        with tf32(False):
            features: torch.Tensor = self._trunk(normalise_crop(crops, self.device))
        return features.cpu().numpy()


def _crop_batches(
    frames: Iterable[np.ndarray], tracks: Sequence[PersonTrack]
) -> Iterator[tuple[np.ndarray, list[tuple[int, int]]]]:
    """Crops (n, 224, 224, 3) of everybody, frame by frame, and the (track, row) that each belongs to."""
    wanted: dict[int, list[tuple[int, int]]] = {}
    for person, track in enumerate(tracks):
        for row, frame_id in enumerate(track.frame_ids):
            wanted.setdefault(int(frame_id), []).append((person, row))
    crops: list[np.ndarray] = []
    targets: list[tuple[int, int]] = []
    for frame_id, frame in enumerate(islice(frames, max(wanted, default=-1) + 1)):
        for person, row in wanted.get(frame_id, ()):
            crops.append(crop_image(frame, tracks[person].bboxes[row], CROP_SCALE))
            targets.append((person, row))
            if len(crops) == _CROP_BATCH:
                yield np.stack(crops), targets
                crops, targets = [], []
    if crops:
        yield np.stack(crops), targets


@EXTRACTORS.register(SpinExtractor.name)
def _spin(body: BodyData, base_data: Path, open_dir: Path, device: torch.device, bf16: bool) -> SpinExtractor:
    return SpinExtractor(load_hmr(base_data / SPIN_CHECKPOINT, body), device, bf16=bf16)


class LandmarkExtractor(Extractor):
    """The landmark network on the landmarks that tracking found, front-back flips undone; needs no image."""

    name = "landmarks"
    needs_frames = False
    fits = True

    def __init__(self, net: LandmarkNet, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.net = net.to(self.device).eval()
        self.fingerprint = fingerprint(net.state_dict())
        self.feature_size = net.last.out_features

    @torch.inference_mode()
    def __call__(
        self,
        frames: Iterable[np.ndarray],
        tracks: Sequence[PersonTrack],
        progress: Callable[[int], object] | None = None,
    ) -> list[StaticFeatures]:
        result = []
        for track in tracks:
            if not isinstance(track, LandmarkTrack):
                raise TypeError("landmarks features need a track with landmarks")
            vectors, boxes = landmark_arrays(*repair_flips(track.xy, track.visibility, track.world))
            parts = [self.net(part.to(self.device)).cpu() for part in torch.split(vectors, _LANDMARK_BATCH)]
            result.append(StaticFeatures(torch.cat(parts).numpy(), boxes))
            if progress is not None:
                progress(len(vectors))
        return result


@EXTRACTORS.register(LandmarkExtractor.name)
def _landmarks(
    body: BodyData, base_data: Path, open_dir: Path, device: torch.device, bf16: bool
) -> LandmarkExtractor:
    return LandmarkExtractor(load_landmark_net(open_dir / LANDMARK_CHECKPOINT), device)


class PosesExtractor(Extractor):
    """Per-frame SMPL estimates of another method (:class:`PoseTrack`); needs no image.

    The crop is one of our own: it follows the person, whatever boxes the other method used, and so large that
    a crop camera of :data:`PEAK` shows it at the scale that the estimates tell.
    """

    name = "poses"
    fingerprint = POSE_FINGERPRINT
    feature_size = POSE_FEATURE_SIZE
    needs_frames = False

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    @torch.inference_mode()
    def __call__(
        self,
        frames: Iterable[np.ndarray],
        tracks: Sequence[PersonTrack],
        progress: Callable[[int], object] | None = None,
    ) -> list[StaticFeatures]:
        result = []
        for track in tracks:
            if not isinstance(track, PoseTrack):
                raise TypeError("poses features need a PoseTrack")
            calm = gaussian(np.log(track.place[:, 2]), _BOX_SMOOTH * track.fps)
            middle = gaussian(track.place[:, :2], _BOX_SMOOTH * track.fps)
            scale = track.place[:, 2:]
            zoom, shift = PEAK * scale / np.exp(calm)[:, None], (track.place[:, :2] - middle) / scale
            side = 2 * np.exp(calm)[:, None] / PEAK / CROP_SCALE
            rotmat, betas, cam = (
                torch.from_numpy(v.astype(np.float32)).to(self.device)
                for v in (track.rotmat, track.betas, np.concatenate([zoom, shift], 1))
            )
            values = track_features(rotmat, betas, cam, track.fps)
            boxes = np.concatenate([middle, side, side], 1).astype(np.float32)
            result.append(StaticFeatures(values.cpu().numpy(), boxes))
            if progress is not None:
                progress(len(values))
        return result


@EXTRACTORS.register(PosesExtractor.name)
def _poses(
    body: BodyData, base_data: Path, open_dir: Path, device: torch.device, bf16: bool
) -> PosesExtractor:
    return PosesExtractor(device)


def load_landmark_net(path: str | Path) -> LandmarkNet:
    """The landmark network of a checkpoint ``{"model": {"extractor.*": ...}}``, in eval mode.

    Raises UserError if the file is missing, or holds no such network.
    """
    model = per_frame_weights(load_checkpoint(path), path)
    weights = {k.removeprefix(_PREFIX): v for k, v in model.items() if k.startswith(_PREFIX)}
    try:
        width, input_size = weights["first.weight"].shape
        blocks = sum(key.startswith("blocks.") and key.endswith(".weight") for key in weights)
        net = LandmarkNet(input_size, width, len(weights["last.weight"]), blocks)
        net.load_state_dict(weights)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise UserError(
            f"{path}: holds no landmark network (entries model/{_PREFIX}*: {error}); expected the file that "
            "scripts/train_landmark_net.py writes"
        ) from error
    return net.eval()


def get_extractor(
    name: str,
    body: BodyData,
    *,
    base_data: str | Path = BASE_DATA,
    open_dir: str | Path = OPEN_DATA,
    device: torch.device | str = "cpu",
    bf16: bool = False,
) -> Extractor:
    """The extractor of that name in :data:`EXTRACTORS`, which says what is given to it.

    Raises UserError for an unknown name and when the weights are missing.
    """
    return EXTRACTORS[name](body, Path(base_data), Path(open_dir), torch.device(device), bf16)

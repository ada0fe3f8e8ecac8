"""The videos of a database split that are measured: which frames, and their ground truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Num, Shaped
from yacs.config import CfgNode

from ..dataset.database import H5Rows, blocks, check_shape, open_database
from ..dataset.datasets import DATASETS, DatasetSpec, FrameRate, database_path
from ..dataset.windows import VIBE_MULTIPLE
from ..open_data.simulate import IMAGE_SIZE
from ..utils.errors import UserError
from ..utils.keypoints import JOINT_NAMES, convert_kps
from .protocol import ROOT_JOINTS

GENDERS = {"m": "male", "f": "female", "male": "male", "female": "female"}  # as databases write them


@dataclass(frozen=True)
class EvalSequence:
    """One video to measure. n frames in time order."""

    name: str
    features: Num[np.ndarray, "n f"]
    joints: Num[np.ndarray, "n j 3"]  # metres, in the dataset's evaluation convention; NaN if unseen
    counted: Bool[np.ndarray, " n"]  # frames whose errors count
    pose: Num[np.ndarray, "n 72"] | None  # axis-angle
    shape: Num[np.ndarray, "n 10"] | None
    removed: int  # frames of the video that are marked invalid and not among the n
    genders: Shaped[np.ndarray, " n"]  # body of the ground truth, neutral, male or female
    images: Shaped[np.ndarray, " n"] | None = None  # image files
    boxes: Float[np.ndarray, "n 4"] | None = None  # cx, cy, w, h in pixels, unscaled
    landmarks: Num[np.ndarray, "n 33 6"] | None = None  # x, y in pixels, visibility, metric x, y, z

    def reason_to_skip(self, shortest: int) -> str:
        """Why it cannot be measured, given the fewest frames that can be predicted; '' if it can."""
        if len(self.features) < shortest:
            return f"{len(self.features)} valid frames, fewer than {shortest}"
        return "" if self.counted.any() else "no frame is marked valid"


class EvaluationSet:
    """The videos of a database split, sorted by name.

    Frames marked invalid in ``valid`` are removed, and the rest is taken as contiguous; ``valid_i`` only says
    which frames count. Frames of which not the root, or less than three joints, were seen do not count
    either. In validation (``validation=True``) the COMPAT keys can restore what the original does there:
    videos cut to multiples of 16 frames, invalid frames kept, targets rounded to half precision.

    Args:
        name_part: only videos whose name contains it.
        gendered: read every frame's gender, for ground truth from the male and the female body.
        images: read image names and boxes too, for drawing.
        landmarks: read landmarks and boxes too, for the fit.
        features: False leaves them out, for predictions that were made elsewhere.

    Raises:
        UserError: the dataset cannot be evaluated, or not so, its database is missing or does not fit, or no
            video matches.
    """

    def __init__(
        self,
        spec: DatasetSpec,
        split: str,
        cfg: CfgNode,
        *,
        name_part: str = "",
        validation: bool = False,
        gendered: bool = False,
        images: bool = False,
        landmarks: bool = False,
        features: bool = True,
    ) -> None:
        if not spec.eval_joints:
            raise UserError(
                f"dataset {spec.name} has no 3D to evaluate: use one of "
                + ", ".join(other.name for other in DATASETS.values() if other.eval_joints)
            )
        if gendered and not spec.gendered:
            known = ", ".join(other.key for other in DATASETS.values() if other.gendered)
            raise UserError(
                f"gendered ground truth is a benchmark of {known}, not of {spec.key}: leave it out"
            )
        self.spec, self.split, self.cfg, self.name_part = spec, split, cfg, name_part
        self.gendered, self._images, self._landmarks = gendered, images, landmarks
        self.path = database_path(spec, split, cfg)
        fields = ["vid_name", "joints3D"] + (["pose", "shape"] if spec.eval_mesh else [])
        fields += ["features"] if features else []
        fields += ["img_name"] if images else []
        fields += ["bbox"] if images or landmarks else []
        fields += ["landmarks"] if landmarks else []
        optional = ["valid", "valid_i", "gender", "fps", "fingerprint", "image_width", "image_height"]
        self._database = open_database(self.path, fields, optional)
        if features:
            check_shape(self.path, self._database, "features", (cfg.MODEL.FEATURE_SIZE,))
        if gendered and "gender" not in self._database:
            options = f"--set {split.removesuffix('_all')}" + " --all-frames" * split.endswith("_all")
            raise UserError(
                f"database {self.path} has no field `gender`, which gendered ground truth needs (the "
                f"official databases lack it): make one with `python -m lib.data_utils.threedpw {options}`, "
                "or leave out --gender gendered"
            )
        # zeros are no pose, as in training
        self.has_mesh = spec.eval_mesh and any(pose.any() for _, pose in blocks(self._database["pose"]))
        self._as_original = validation and cfg.COMPAT.VALIDATION
        self._float16 = validation and cfg.COMPAT.FLOAT16_TARGETS
        names = np.asarray(self._database["vid_name"])
        self.names = [str(name) for name in np.unique(names) if name_part in str(name)]
        if not self.names:
            raise UserError(f"no sequence of {self.path} has {name_part!r} in its name")
        order = np.argsort(names, kind="stable")
        self._rows = {str(names[rows[0]]): rows for rows in _runs(names, order)}

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[EvalSequence]:
        return (self._load(name) for name in self.names)

    def check(self, static_borders: bool) -> None:
        """Whether a model with windows of DATASET.SEQLEN can be measured on a sequence at all.

        Raises:
            UserError: every sequence would be skipped.
        """
        shortest, reasons = self.shortest(self.cfg.DATASET.SEQLEN, static_borders), []
        for sequence in self:
            reason = sequence.reason_to_skip(shortest)
            if not reason:
                return
            reasons.append((sequence.name, len(sequence.features) + sequence.removed, reason))
        raise self.nothing_left(reasons)

    @staticmethod
    def shortest(seqlen: int, static_borders: bool) -> int:
        """The fewest frames that can be predicted."""
        return seqlen if static_borders else 1

    def nothing_left(self, skipped: list[tuple[str, int, str]]) -> UserError:
        """The error where every sequence was skipped: names, frames and reasons."""
        reasons = "; ".join(f"{name} ({frames} frames): {reason}" for name, frames, reason in skipped[:3])
        return UserError(f"no sequence of {self.path} can be evaluated: {reasons}")

    @property
    def fingerprint(self) -> str:
        """Of the extractor that made the features, '' if unknown."""
        return self._database.fingerprint

    @property
    def image_size(self) -> tuple[int, int]:
        """Width and height, px; of a database that does not say, those of simulated images."""
        width, height = (self._database.get(f"image_{side}", IMAGE_SIZE) for side in ("width", "height"))
        return int(width), int(height)

    @property
    def frame_rate(self) -> FrameRate:
        """The database's own ``fps`` if it has one, else what is known of the dataset."""
        if "fps" not in self._database:
            return self.spec.frame_rate
        rates = np.unique(np.asarray(self._database["fps"], np.float64))
        if len(rates) == 1 and 0 < rates[0] < np.inf:
            return FrameRate(float(rates[0]), "the database's fps")
        return FrameRate(None, "the database's fps is not one positive number")

    def rows(self, name: str) -> np.ndarray:
        """The rows of a video in the database, in time order, valid or not."""
        return self._rows[name]

    def kept(self, name: str) -> np.ndarray:
        """Which of :meth:`rows` are in the sequence, bool."""
        rows = self._rows[name]
        if self._as_original:
            return np.arange(len(rows)) < len(rows) // VIBE_MULTIPLE * VIBE_MULTIPLE
        if "valid" in self._database:
            valid: np.ndarray = np.asarray(self._database["valid"]).reshape(-1)[rows]
            return valid.astype(bool)
        return np.ones(len(rows), bool)

    def _load(self, name: str) -> EvalSequence:
        database, rows = self._database, self._rows[name]
        total = len(rows)
        rows = rows[self.kept(name)]
        counted = np.ones(len(rows), bool)
        if "valid_i" in database:
            counted = np.asarray(database["valid_i"]).reshape(len(database["vid_name"]), -1)[rows, 0] != 0
        pose, shape = (
            (self._target(database[key][rows]) if self.has_mesh else None) for key in ("pose", "shape")
        )
        joints = self._joints(rows)
        seen = ~np.isnan(joints[..., 0])
        root = ROOT_JOINTS[self.spec.eval_joints]
        counted &= seen[:, root].all(axis=1) & (seen.sum(axis=1) >= 3)
        return EvalSequence(
            name,
            _take(database["features"], rows) if "features" in database else np.zeros((len(rows), 0)),
            joints,
            counted,
            pose,
            shape,
            removed=0 if self._as_original else total - len(rows),
            genders=self._genders(rows),
            images=database["img_name"][rows] if self._images else None,
            boxes=np.asarray(database["bbox"][rows], np.float64) if "bbox" in database else None,
            landmarks=np.asarray(database["landmarks"][rows]) if self._landmarks else None,
        )

    def _genders(self, rows: np.ndarray) -> np.ndarray:
        if not self.gendered:
            return np.full(len(rows), "neutral")
        stored = self._database["gender"][rows].astype(str)
        unknown = sorted(set(stored.tolist()) - set(GENDERS))
        if unknown:
            raise UserError(f"database {self.path}: gender is {unknown[0]!r}, expected m, f, male or female")
        return np.array([GENDERS[gender] for gender in stored.tolist()], str)

    def _joints(self, rows: np.ndarray) -> np.ndarray:
        joints, convention = self._database["joints3D"][rows], self.spec.eval_joints
        if joints.shape[1] == len(JOINT_NAMES["spin"]):
            joints = convert_kps(joints, "spin", convention)
        elif joints.shape[1] != len(JOINT_NAMES[convention]):
            raise UserError(
                f"database {self.path}: joints3D has {joints.shape[1]} joints, "
                f"expected 49 or the {len(JOINT_NAMES[convention])} of {convention}"
            )
        return self._target(joints)

    def _target(self, values: np.ndarray) -> np.ndarray:
        return values.astype(np.float16).astype(np.float32) if self._float16 else values


def _take(values: np.ndarray | H5Rows, rows: np.ndarray) -> np.ndarray:
    """``values[rows]``; of a memory-mapped file, consecutive rows stay in the file."""
    if isinstance(values, np.ndarray) and len(rows) and (np.diff(rows) == 1).all():
        return values[rows[0] : rows[-1] + 1]
    return values[rows]


def _runs(names: np.ndarray, order: np.ndarray) -> list[np.ndarray]:
    ordered = names[order]
    return np.split(order, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1)

"""Per-frame SMPL estimates of other methods: a file of arrays -> people over consecutive frames.

docs/poses.md tells which arrays a file may hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from ..data_utils.boxes import get_bbox_from_kp2d
from ..models.body import BodyData
from ..models.extractors import PoseTrack
from ..models.landmark_body import LandmarkBody
from ..utils.errors import UserError
from ..utils.files import load_arrays
from ..utils.geometry import axis_angle_to_rotmat, rot6d_to_rotmat, rotmat_to_rot6d
from ..utils.pose_features import bridge
from .track import MAX_GAP

_BOX = 1.1  # side of a box about a person over the extent of the joints
_KEYS = {
    "rotmat": ("rotmat", "pred_rotmat"),
    "poses": ("poses", "pose", "full_pose"),
    "root": ("global_orient", "root_orient"),
    "body_pose": ("body_pose", "pose_body"),
    "betas": ("betas", "pred_betas", "shape"),
    "boxes": ("boxes", "bboxes", "bbox"),
    "cam": ("cam", "pred_cam"),
    "transl": ("transl", "trans", "pred_cam_t", "cam_trans"),
    "focal": ("focal", "focal_length"),
    "frame_ids": ("frame_ids", "frame_id", "frames"),
    "person_ids": ("person_ids", "person_id", "track_ids", "track_id"),
    "body": ("body",),
}
_SMPL = 24  # joints
_WHOLE_BODY = (22, 52, 55)  # joints of the body of SMPL-H and SMPL-X, with hands, with face
_LARGEST = {"betas": 30.0, "boxes": 1e6, "cam": 1e3, "transl": 1e4, "focal": 1e6, "axis-angle": 4 * np.pi}
_NOT_ORTHOGONAL = 0.05


@dataclass(frozen=True, eq=False)
class PoseEstimates:
    """What a file says of n persons in frames, in the file's order; float32.

    Attributes:
        path: the file.
        rotmat: the root's in the camera's frame (x right, y down, z away).
        betas: of the body ``body``: ``smpl`` or ``open``.
        boxes: cx, cy, w, h px.
        cam: s, tx, ty of the square crop about ``boxes``.
        transl: metres.
        focal: px, that ``transl`` is meant with.
    """

    path: Path
    frame_ids: Int[np.ndarray, " n"]
    person_ids: Int[np.ndarray, " n"]
    rotmat: Float[np.ndarray, "n 24 3 3"]
    betas: Float[np.ndarray, "n 10"]
    body: str
    boxes: Float[np.ndarray, "n 4"] | None
    cam: Float[np.ndarray, "n 3"] | None
    transl: Float[np.ndarray, "n 3"] | None
    focal: Float[np.ndarray, " n"] | None

    def place(self, width: int, height: int, focal: float, body: LandmarkBody) -> Float[np.ndarray, "n 3"]:
        """Where an image of that size shows the origin of each body, px, and px per metre there.

        Args:
            focal: of the camera, px, where the file tells none.
            body: whose joints a box encloses, where the file tells no camera.
        """
        if self.cam is not None and self.boxes is not None:
            scale = self.cam[:, 0] * self.boxes[:, 2:].max(1) / 2
            return _placed(self.boxes[:, :2] + scale[:, None] * self.cam[:, 1:], scale)
        if self.transl is not None:
            scale = (focal if self.focal is None else self.focal) / self.transl[:, 2]
            return _placed(np.array([width, height]) / 2 + scale[:, None] * self.transl[:, :2], scale)
        assert self.boxes is not None
        extent = get_bbox_from_kp2d(self._joints(body), _BOX)
        scale = self.boxes[:, 2:].max(1) / extent[:, 2]
        return _placed(self.boxes[:, :2] - scale[:, None] * extent[:, :2], scale)

    def person_boxes(self, place: Float[np.ndarray, "n 3"], body: LandmarkBody) -> Float[np.ndarray, "n 4"]:
        """Square boxes cx, cy, side, side px: the file's, else about the joints."""
        if self.boxes is not None:
            side = self.boxes[:, 2:].max(1, keepdims=True)
            return np.concatenate([self.boxes[:, :2], side, side], 1)
        xy = place[:, None, :2] + place[:, None, 2:] * self._joints(body)[..., :2]
        return get_bbox_from_kp2d(xy, _BOX)

    def _joints(self, body: LandmarkBody) -> np.ndarray:
        shape = self.betas if self.body == "open" else np.zeros_like(self.betas)
        like = body.joint_template
        with torch.inference_mode():
            parts = [
                body(torch.from_numpy(pose).to(like), torch.from_numpy(betas).to(like))[0].cpu().numpy()
                for pose, betas in zip(_blocks(self.rotmat), _blocks(shape))
            ]
        return np.concatenate(parts)


def read_poses(path: str | Path, what: str = "--poses") -> PoseEstimates:
    """The estimates of an ``.npz`` file.

    Raises:
        UserError: the file is missing, damaged, lacks an array, or holds what is no pose, shape or camera.
    """
    path = Path(path)
    names = [name for names in _KEYS.values() for name in names]
    data = load_arrays(path, f"{what} file", (), names)
    file = _File(f"{what} {path}", data)
    rotmat = file.rotations()
    file.rows = n = len(rotmat)
    boxes = file.numbers("boxes", (4,))
    cam = file.numbers("cam", (3,))
    transl = file.numbers("transl", (3,))
    if boxes is not None and (boxes[:, 2:] <= 0).any():
        raise file.wrong("boxes", "have no extent: expected cx, cy, w, h in px")
    if cam is not None and (cam[:, 0] <= 1e-3).any():
        raise file.wrong("cam", "have a scale that is not above 0: expected s, tx, ty of a crop")
    if transl is not None and (transl[:, 2] <= 0.1).any():
        raise file.wrong("transl", "lie behind the camera: expected metres with z away from it")
    if transl is None and boxes is None:
        raise UserError(
            f"{what} {path} does not tell where people are: add boxes (T, 4) cx, cy, w, h px, with the cam "
            "(T, 3) s, tx, ty of their crops; or transl (T, 3) m with focal, px (docs/poses.md)"
        )
    frame_ids, person_ids = file.ids("frame_ids", np.arange(n)), file.ids("person_ids", np.ones(n, int))
    pairs = np.stack([person_ids, frame_ids], 1)
    unique, count = np.unique(pairs, axis=0, return_counts=True)
    if len(unique) < n:
        person, frame = unique[count > 1][0]
        advice = "" if file.name("person_ids") else "; tell people apart by person_ids (T,)"
        raise UserError(f"{what} {path}: person {person} is in frame {frame} twice{advice}")
    return PoseEstimates(
        path, frame_ids, person_ids, rotmat, file.betas(), file.body(), boxes, cam, transl, file.focal()
    )


class _File:
    """The arrays of a file by what they mean; all have ``rows`` rows."""

    def __init__(self, where: str, data: Mapping[str, np.ndarray]) -> None:
        self.where, self.data, self.rows = where, data, 0

    def name(self, key: str) -> str:
        """The name that the file has for something, '' if none."""
        return next((name for name in _KEYS[key] if name in self.data), "")

    def wrong(self, key: str, what: str) -> UserError:
        return UserError(f"{self.where}: {self.name(key)} {what}")

    def finite(self, key: str, limit: str = "") -> np.ndarray:
        value = self.data[self.name(key)]
        if value.dtype.kind not in "?biuf" or not value.size:
            raise self.wrong(key, f"holds {value.dtype if value.size else 'nothing'}, expected numbers")
        with np.errstate(over="ignore"):
            value = value.astype(np.float32)
        bad = np.flatnonzero(~np.isfinite(value.reshape(len(value) if value.ndim else 1, -1)).all(1))
        if len(bad):
            raise self.wrong(
                key, f"holds NaN or infinite numbers, first in row {bad[0]}; leave such rows out"
            )
        largest = _LARGEST.get(limit or key)
        if largest is not None and value.size and np.abs(value).max() > largest:
            raise self.wrong(key, f"holds {np.abs(value).max():.3g}, expected at most {largest:.3g}")
        return value

    def numbers(self, key: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """(rows, *shape), or None if the file has no such array."""
        if not self.name(key):
            return None
        value = self.finite(key)
        if value.shape != (self.rows, *shape):
            raise self.wrong(key, f"has shape {value.shape}, expected {(self.rows, *shape)}")
        return value

    def rotations(self) -> np.ndarray:
        """(T, 24, 3, 3)."""
        if self.name("rotmat"):
            return self.matrices("rotmat", self.finite("rotmat"), _SMPL)
        if self.name("poses"):
            value = self.finite("poses", "axis-angle")
            joints = value.size // max(len(value), 1) // 3 if value.ndim >= 2 else 0
            if value.ndim not in (2, 3) or joints * 3 * len(value) != value.size:
                joints = 0
            if joints not in (_SMPL, *_WHOLE_BODY):
                raise self.wrong(
                    "poses",
                    f"has shape {value.shape}, expected axis-angle (T, 72), or of SMPL-H or SMPL-X (T, 66)",
                )
            return _whole(_rotations_of(value.reshape(len(value), joints, 3)))
        if not (self.name("root") and self.name("body_pose")):
            raise UserError(
                f"{self.where} holds no poses: expected rotmat (T, 24, 3, 3), poses (T, 72), or "
                "global_orient and body_pose (docs/poses.md)"
            )
        root, body = self.part("root", (1,)), self.part("body_pose", (23, 21))
        if len(root) != len(body):
            raise self.wrong("body_pose", f"has {len(body)} rows, {self.name('root')} {len(root)}")
        return _whole(np.concatenate([root, body], 1))

    def part(self, key: str, counts: tuple[int, ...]) -> np.ndarray:
        """Rotations (T, J, 3, 3) of J joints, J one of ``counts``, from matrices or axis-angle."""
        value = self.finite(key)
        rows = len(value) if value.ndim else 0
        for joints in counts:
            if value.ndim >= 3 and value.shape[-2:] == (3, 3) and value.size == rows * joints * 9:
                return self.matrices(key, value.reshape(rows, joints, 3, 3), joints)
            if value.ndim in (2, 3) and value.size == rows * joints * 3:
                return _rotations_of(self.finite(key, "axis-angle").reshape(rows, joints, 3))
        expected = " or ".join(f"(T, {3 * n}) or (T, {n}, 3, 3)" for n in counts)
        raise self.wrong(key, f"has shape {value.shape}, expected {expected}")

    def matrices(self, key: str, value: np.ndarray, joints: int) -> np.ndarray:
        if value.ndim != 4 or value.shape[1:] != (joints, 3, 3):
            raise self.wrong(key, f"has shape {value.shape}, expected (T, {joints}, 3, 3)")
        with np.errstate(over="ignore", invalid="ignore"):
            off = np.abs(np.swapaxes(value, -1, -2) @ value - np.eye(3)).max((-1, -2))
            bad = ~(off < _NOT_ORTHOGONAL) | (np.linalg.det(value.astype(float)) < 0)
        if bad.any():
            row, joint = np.argwhere(bad)[0]
            raise self.wrong(key, f"holds a matrix that is no rotation, first in row {row}, joint {joint}")
        return rot6d_to_rotmat(rotmat_to_rot6d(torch.from_numpy(value))).numpy()

    def betas(self) -> np.ndarray:
        """(rows, 10); of one row for all, it is repeated; 0 where the file tells none."""
        if not self.name("betas"):
            return np.zeros((self.rows, 10), np.float32)
        value = self.finite("betas")
        value = value[None] if value.ndim == 1 else value
        if value.ndim != 2 or value.shape[1] < 10 or len(value) not in (1, self.rows):
            raise self.wrong("betas", f"has shape {value.shape}, expected (10,) or ({self.rows}, 10)")
        return np.array(np.broadcast_to(value[:, :10], (self.rows, 10)))

    def body(self) -> str:
        kind = str(self.data["body"]) if "body" in self.data else "smpl"
        if kind not in ("smpl", "open"):
            raise UserError(f"{self.where}: body is {kind[:20]!r}, expected smpl or open")
        return kind

    def focal(self) -> np.ndarray | None:
        """(rows,) px."""
        if not self.name("focal"):
            return None
        value = self.finite("focal")
        if value.size == 1:
            value = np.full(self.rows, value.item(), np.float32)
        elif value.shape == (self.rows, 2):
            value = value[:, 0]
        value = value[:, 0] if value.shape == (self.rows, 1) else value
        if value.shape != (self.rows,) or (value <= 1).any():
            raise self.wrong("focal", f"has shape {value.shape}, expected px: one number, or one per row")
        return value

    def ids(self, key: str, default: np.ndarray) -> np.ndarray:
        """(rows,) whole numbers from 0 on."""
        if not self.name(key):
            return default
        value = self.data[self.name(key)]
        if value.shape != (self.rows,) or value.dtype.kind not in "biuf":
            raise self.wrong(key, f"has shape {value.shape}, expected ({self.rows},) whole numbers")
        if not ((value >= 0) & (value < 1 << 31) & (value == np.floor(value))).all():
            raise self.wrong(key, "holds numbers that are not whole, or less than 0")
        return value.astype(np.int64)


def pose_tracks(
    estimates: PoseEstimates, body: BodyData, *, width: int, height: int, focal: float, fps: float
) -> list[PoseTrack]:
    """The people of a file as tracks, by their numbers.

    Gaps of up to a third of a second are interpolated. Somebody missing for longer goes on under a new
    number. Shapes of a body other than ``body`` are of no use and become the mean.

    Args:
        width, height, fps: of the video. focal: of its camera, px, where the file tells none.
    """
    points = LandmarkBody(body)
    place = estimates.place(width, height, focal, points)
    boxes = estimates.person_boxes(place, points)
    betas = estimates.betas if estimates.body == body.kind else np.zeros_like(estimates.betas)
    longest = max(1, round(MAX_GAP * fps)) + 1
    spare = int(estimates.person_ids.max()) + 1
    poses = rotmat_to_rot6d(torch.from_numpy(estimates.rotmat)).numpy()
    tracks = []
    for person in np.unique(estimates.person_ids):
        rows = np.flatnonzero(estimates.person_ids == person)
        rows = rows[np.argsort(estimates.frame_ids[rows])]
        parts = np.split(rows, np.flatnonzero(np.diff(estimates.frame_ids[rows]) > longest) + 1)
        for number, part in enumerate(parts):
            known = estimates.frame_ids[part]
            frame_ids = np.arange(known[0], known[-1] + 1)
            seen = np.isin(frame_ids, known)

            def filled(values: np.ndarray, part: np.ndarray = part, seen: np.ndarray = seen) -> np.ndarray:
                every = np.zeros((len(seen), *values.shape[1:]), np.float32)
                every[seen] = values[part]
                return bridge(torch.from_numpy(every), torch.from_numpy(seen)).numpy()

            tracks.append(
                PoseTrack(
                    person_id=int(person) if number == 0 else spare,
                    frame_ids=frame_ids,
                    bboxes=filled(boxes),
                    seen=seen,
                    rotmat=rot6d_to_rotmat(torch.from_numpy(filled(poses))).numpy(),
                    betas=filled(betas),
                    place=filled(place),
                    fps=fps,
                )
            )
            spare += number > 0
    return tracks


def _placed(xy: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.concatenate([xy, scale[:, None]], 1).astype(np.float32)


def _rotations_of(axis_angle: np.ndarray) -> np.ndarray:
    return axis_angle_to_rotmat(torch.from_numpy(axis_angle)).numpy()


def _whole(rotmat: Float[np.ndarray, "n j 3 3"]) -> Float[np.ndarray, "n 24 3 3"]:
    """Root and body of SMPL, SMPL-H or SMPL-X -> SMPL; its hands are at rest where there are none."""
    if rotmat.shape[1] == _SMPL:
        return rotmat
    hands = np.broadcast_to(np.eye(3, dtype=np.float32), (len(rotmat), 2, 3, 3))
    return np.concatenate([rotmat[:, :22], hands], 1)


def _blocks(values: np.ndarray, size: int = 4096) -> list[np.ndarray]:
    return [values[start : start + size] for start in range(0, len(values), size)]

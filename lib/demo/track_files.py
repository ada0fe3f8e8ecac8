"""Tracks as files (MOT challenge text), people followed in the boxes of one, and the choice among people.

A line of such a file is ``frame, person, left, top, width, height`` and further fields, separated by commas:
frames count from 1, boxes are pixels. A seventh field of 0 leaves the line out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..landmarks.blazepose import LandmarkNetwork, Landmarks, intersection_over_union
from ..landmarks.features import landmark_boxes
from ..models.extractors import PersonTrack, PoseTrack
from ..utils.errors import UserError, fault
from ..utils.files import atomic_write
from .track import MAX_GAP, Track, make_track
from .tracking import MIN_PRESENCE

Boxes = Mapping[int, Mapping[int, np.ndarray]]
"""Frame (from 0) -> person -> box (4,) left, top, width, height px."""
MIN_OVERLAP = 0.2  # IoU of a box with the landmarks found in it


def read_boxes(path: str | Path) -> Boxes:
    """The boxes of a MOT text file. UserError, naming the line, if it is none."""
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"--tracks {path} {fault(path)}; expected lines of frame,person,left,top,width,height"
        )
    boxes: dict[int, dict[int, np.ndarray]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            frame, person, *numbers = map(float, line.replace(",", " ").split())
            box = np.array(numbers[:4])
            fits = len(box) == 4 and np.isfinite(box).all() and (box[2:] > 0).all()
            if not (fits and frame >= 1 and frame == int(frame) and person >= 0 and person == int(person)):
                raise ValueError
        except (ValueError, OverflowError):
            raise UserError(
                f"--tracks {path}, line {number}: {line.strip()[:60]!r} is no "
                "frame,person,left,top,width,height with frames from 1 and a number for every person"
            ) from None
        if len(numbers) > 4 and numbers[4] == 0:
            continue
        people = boxes.setdefault(int(frame) - 1, {})
        if int(person) in people:
            raise UserError(
                f"--tracks {path}, line {number}: a second box of person {int(person)} in frame {int(frame)}"
            )
        people[int(person)] = box
    if not boxes:
        raise UserError(
            f"--tracks {path}: holds no box; expected lines of frame,person,left,top,width,height"
        )
    return boxes


def save_boxes(tracks: Sequence[Track | PoseTrack], path: str | Path) -> None:
    """Write tracks as MOT text: their boxes, of frames that were seen."""
    lines = []
    for track in tracks:
        for frame, (cx, cy, side, _), visibility in zip(track.frame_ids, track.bboxes, track.visibility):
            if visibility.max() > 0:
                box = f"{cx - side / 2:.2f},{cy - side / 2:.2f},{side:.2f},{side:.2f}"
                lines.append((frame, track.person_id, f"{frame + 1},{track.person_id},{box},1,-1,-1,-1\n"))
    with atomic_write(path) as temporary:
        temporary.write_text("".join(line for *_, line in sorted(lines)), encoding="ascii")


def track_boxes(
    frames: Iterable[np.ndarray], boxes: Boxes, network: LandmarkNetwork, *, fps: float = 30.0
) -> list[Track]:
    """Tracks of the people in given boxes, by their numbers.

    In every box that holds a person the landmarks are located; gaps of up to a third of a second are
    interpolated. Somebody missing for longer goes on under a new number, as in ``track_people``.
    """
    seen: dict[int, dict[int, Landmarks]] = {}
    for frame_id, frame in enumerate(frames):
        for person, box in boxes.get(frame_id, {}).items():
            known = seen.setdefault(person, {})
            found = _locate(frame, box, known.get(frame_id - 1), network)
            if found is not None:
                known[frame_id] = found
    longest = max(1, round(MAX_GAP * fps)) + 1
    spare = max(seen, default=0) + 1
    tracks = []
    for person, known in sorted(seen.items()):
        ids = sorted(known)
        starts = [k for k in range(len(ids)) if k == 0 or ids[k] - ids[k - 1] > longest]
        for start, end in zip(starts, [*starts[1:], len(ids)]):
            number, spare = (person, spare) if start == 0 else (spare, spare + 1)
            part = ids[start:end]
            tracks.append(make_track(number, part, [known[i] for i in part]))
    return tracks


def _locate(
    frame: np.ndarray, box: np.ndarray, before: Landmarks | None, network: LandmarkNetwork
) -> Landmarks | None:
    """The landmarks of the person in a box: in the circle that the frame before gave, else in the box's."""
    corners = np.stack([box[:2], box[:2] + box[2:]])

    def fits(found: Landmarks) -> bool:
        cx, cy, side, _ = landmark_boxes(found.xy)
        low = found.xy.min(axis=0), found.xy.max(axis=0)
        square = np.array([[cx - side / 2, cy - side / 2], [cx + side / 2, cy + side / 2]])
        overlap = intersection_over_union(corners, np.stack([np.stack(low), square])).max()
        return found.score >= MIN_PRESENCE and overlap >= MIN_OVERLAP

    if before is not None:
        found = network(frame, before.next_centre, before.next_scale_point)
        if fits(found):
            return found
    centre = box[:2] + box[2:] / 2
    first = network(frame, centre, centre - np.array([0, max(box[2:]) / 2]))
    found = network(frame, first.next_centre, first.next_scale_point)
    return next((reading for reading in (found, first) if fits(reading)), None)


_Anyone = TypeVar("_Anyone", bound=PersonTrack)


def choose_people(tracks: Sequence[_Anyone], person: str) -> list[_Anyone]:
    """Those that ``--person`` asks for: ``all``, ``largest`` (by area, summed over frames) or a number.

    Raises UserError if there is no such person.
    """
    if person == "all" or not tracks:
        return list(tracks)
    if person == "largest":
        return [max(tracks, key=lambda track: float((track.bboxes[:, 2].astype(float) ** 2).sum()))]
    chosen = [track for track in tracks if str(track.person_id) == person]
    if not chosen:
        found = ", ".join(str(track.person_id) for track in tracks)
        raise UserError(f"--person {person}: found were {found}; expected one of them, largest or all")
    return chosen

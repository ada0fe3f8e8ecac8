"""Tracks as files: reading, writing, following given boxes, choosing people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lib.demo.track import Track, make_track
from lib.demo.track_files import choose_people, read_boxes, save_boxes, track_boxes
from lib.landmarks.blazepose import Landmarks
from lib.landmarks.features import landmark_boxes
from lib.utils.errors import UserError
from tests.test_tracking import Scene, landmarks, spans


def line(frame: int, person: int, at: np.ndarray, radius: float = 100.0) -> str:
    """The tight box of somebody of a scene, in a frame from 0."""
    xy = landmarks(at, radius).xy
    left, top = xy.min(axis=0)
    width, height = np.ptp(xy, axis=0)
    return f"{frame + 1},{person},{left:.1f},{top:.1f},{width:.1f},{height:.1f},0.9,-1,-1,-1\n"


def follow(scene: Scene, path: Path, lines: list[str], count: int, fps: float = 30.0) -> list[Track]:
    path.write_text("".join(lines))
    return track_boxes(scene.frames(count), read_boxes(path), scene, fps=fps)  # type: ignore[arg-type]


def test_given_people_are_followed_under_their_numbers(tmp_path: Path) -> None:
    """No others, in no other frames; the landmarks are the network's own."""
    scene = Scene([(200, 200), (600, 200), (1000, 200)])
    lines = [line(f, 7, scene.position(2, f)) for f in range(5, 40)]
    lines += [line(f, 3, scene.position(0, f) + 6) for f in range(30)]
    first, second = follow(scene, tmp_path / "a.txt", lines, 50)
    assert [first.person_id, second.person_id] == [3, 7]
    assert spans([first, second]) == [(0, 29), (5, 39)]
    for track, person in ((first, 0), (second, 2)):
        truth = np.stack([scene.position(person, int(f)) for f in track.frame_ids])[:, None]
        np.testing.assert_allclose(
            track.xy - truth, (landmarks(np.zeros(2)).xy)[None].repeat(len(truth), 0), atol=1e-3
        )
        np.testing.assert_allclose(track.bboxes, landmark_boxes(track.xy))
    assert scene.detections == 0


def test_gaps_in_given_boxes(tmp_path: Path) -> None:
    """Up to a third of a second is interpolated; after more somebody goes on under a new number."""
    scene = Scene([(200, 200)], speed=2)
    frames = [f for f in range(80) if not (20 <= f < 30 or 50 <= f < 61)]
    tracks = follow(scene, tmp_path / "a.txt", [line(f, 4, scene.position(0, f)) for f in frames], 80)
    assert [(t.person_id, *span) for t, span in zip(tracks, spans(tracks))] == [(4, 0, 49), (5, 61, 79)]
    np.testing.assert_array_equal(np.flatnonzero(tracks[0].visibility.max(axis=1) == 0), np.arange(20, 30))
    np.testing.assert_allclose(tracks[0].xy[:, 0, 0], tracks[0].xy[0, 0, 0] + 2 * np.arange(50), atol=1e-2)


def test_empty_boxes_give_nobody(tmp_path: Path) -> None:
    scene = Scene([(200, 200)], speed=0)
    elsewhere = [line(f, 1, np.array([900, 200])) for f in range(20)]
    assert follow(scene, tmp_path / "a.txt", elsewhere, 20) == []


def test_a_circle_that_strays_comes_back_to_its_box(tmp_path: Path) -> None:
    """The network runs away with the wrong one of two people; the box says who is meant."""
    scene = Scene([(300, 200), (420, 200)], speed=0)

    def network(frame: np.ndarray, centre: np.ndarray, scale_point: np.ndarray) -> Landmarks:
        if frame[0, 0, 0] == 10 and abs(centre[0] - 300) < 1e-6:
            return landmarks(np.array([420.0, 200]))
        return scene(frame, centre, scale_point)

    (tmp_path / "a.txt").write_text("".join(line(f, 1, scene.position(0, f) + 3) for f in range(20)))
    boxes = read_boxes(tmp_path / "a.txt")
    (track,) = track_boxes(scene.frames(20), boxes, network)  # type: ignore[arg-type]
    np.testing.assert_allclose(np.ptp(track.xy[:, 0], axis=0), 0, atol=1e-3)
    assert track.visibility.max(axis=1).min() > 0


def test_written_tracks_lead_to_the_same_people(tmp_path: Path) -> None:
    scene = Scene(
        [(200, 200), (700, 200)], speed=3, present=lambda person, frame: person == 0 or 9 < frame < 50
    )
    tracks = scene.track(60)
    save_boxes(tracks, tmp_path / "tracks.txt")
    again = track_boxes(scene.frames(60), read_boxes(tmp_path / "tracks.txt"), scene)  # type: ignore[arg-type]
    assert [(t.person_id, span) for t, span in zip(again, spans(again))] == [(1, (0, 59)), (2, (10, 49))]
    for a, b in zip(tracks, again):
        np.testing.assert_allclose(a.xy, b.xy, atol=1e-3)


def test_interpolated_frames_are_not_written(tmp_path: Path) -> None:
    track = make_track(3, [4, 5, 8], [landmarks(np.array([300.0, 200])) for _ in range(3)])
    save_boxes([track], tmp_path / "tracks.txt")
    frames = [row.split(",")[:2] for row in (tmp_path / "tracks.txt").read_text().splitlines()]
    assert frames == [["5", "3"], ["6", "3"], ["9", "3"]]


def test_what_is_read(tmp_path: Path) -> None:
    """Commas or blanks, empty lines, numbers that are written as 1.0, lines that are marked as ignored."""
    text = "1,1,10,20,30,40\n\n2.0, 1.0, 10.5, 20, 30, 40, 1, -1\n3 2 1 2 3 4\n4,1,10,20,30,40,0,-1,-1,-1\n"
    (tmp_path / "a.txt").write_text(text)
    boxes = read_boxes(tmp_path / "a.txt")
    assert {f: {p: b.tolist() for p, b in people.items()} for f, people in boxes.items()} == {
        0: {1: [10, 20, 30, 40]},
        1: {1: [10.5, 20, 30, 40]},
        2: {2: [1, 2, 3, 4]},
    }


@pytest.mark.parametrize(
    "bad",
    [
        "frame,id,x,y,w,h",
        "1,1,10,20,30",
        "0,1,10,20,30,40",
        "1,-1,10,20,30,40",
        "1.5,1,10,20,30,40",
        "1,1,nan,20,30,40",
        "1,1,10,20,0,40",
        "1,inf,10,20,30,40",
        "\0\1\2",
    ],
)
def test_what_is_no_track_is_named(tmp_path: Path, bad: str) -> None:
    (tmp_path / "a.txt").write_text(f"1,2,10,20,30,40\n{bad}\n")
    with pytest.raises(UserError, match=r"a\.txt, line 2: .* is no frame,person,left,top,width,height"):
        read_boxes(tmp_path / "a.txt")


def test_unusable_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1,1,1,2,3,4\n1,1,1,2,3,4\n")
    with pytest.raises(UserError, match="line 2: a second box of person 1 in frame 1"):
        read_boxes(tmp_path / "a.txt")
    (tmp_path / "a.txt").write_text("\n")
    with pytest.raises(UserError, match="holds no box"):
        read_boxes(tmp_path / "a.txt")
    with pytest.raises(UserError, match="is a folder"):
        read_boxes(tmp_path)


def test_choice() -> None:
    """The largest is who fills most pixels over all frames, not who is largest in one."""

    def track(person: int, radius: float, count: int) -> Track:
        return make_track(person, range(count), [landmarks(np.array([300.0, 200]), radius)] * count)

    tracks = [track(1, 50, 20), track(2, 40, 90), track(4, 60, 3)]
    assert [t.person_id for t in choose_people(tracks, "largest")] == [2]
    assert [t.person_id for t in choose_people(tracks, "all")] == [1, 2, 4]
    assert [t.person_id for t in choose_people(tracks, "4")] == [4]
    with pytest.raises(UserError, match="--person 3: found were 1, 2, 4"):
        choose_people(tracks, "3")

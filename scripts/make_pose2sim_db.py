"""Make a database of real video with 3D targets: people filmed by four calibrated cameras.

    python -m lib.open_data.assets --views --heavy
    python scripts/make_pose2sim_db.py [--set single|multi] [--network full|heavy] [--out FILE]

Each person seen by each camera is one video. The targets are the landmarks of all views, triangulated and
smoothed: a pseudo ground truth (good to about 1-2 cm; limb lengths vary by 1 cm) that depends on the same
kind of network as the input. Frames in which fewer than two cameras see the person, or the cameras disagree,
are left out. The twelve limb joints are filled in, ``joints_valid`` tells which of the 49; the rest are NaN.

``single`` is the clip of one person that the simulated noise is calibrated on. ``multi`` is for testing: the
same recording with a second, computer-made person; only who is not in ``single`` is kept.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from lib.utils.errors import leave_on_signals

    leave_on_signals()

from lib.demo.track import Track
from lib.demo.tracking import track_people
from lib.landmarks.blazepose import LandmarkNetwork, PersonDetector
from lib.landmarks.features import LIMB_JOINTS, LIMB_LANDMARKS
from lib.models.extractors import Extractor, LandmarkExtractor, load_landmark_net
from lib.open_data.multiview import (
    Camera,
    associate,
    centre_cameras,
    project,
    read_qualisys,
    to_camera,
    triangulate,
)
from lib.utils.errors import UserError, run_command
from lib.utils.files import dump_joblib
from lib.utils.options import positive_integer
from lib.utils.pinned import asset_path
from lib.utils.smoothing import gaussian
from lib.video.video_file import VideoFile

log = logging.getLogger(__name__)

NUM_JOINTS = 49
MIN_TRUST = 0.05  # of a landmark that its network calls invisible
MAX_ERROR = 0.02  # median reprojection error of a frame's joints in radians: more, and the views disagree
SMOOTHING = 1.5  # sigma of the targets in frames
MIN_VIEWS = 3  # two agree on anything, also on what is no person
MIN_FRAMES = 25  # of a person's consecutive frames with targets
SAME_PLACE = 0.1  # metres between two people's joints in the same frames: less is one person
SAME_IMAGE = 0.15  # … between a track and a projected person, in sides of the track's boxes
FOLDERS = {"single": "views", "multi": "views_multi"}

Views = Sequence[Sequence[Track]]  # of each camera, the people it sees


def track_views(folder: Path, cameras: Sequence[Camera], network: str, threads: int) -> list[list[Track]]:
    """The people in each camera's video. Raises UserError where there's nobody."""
    detector = PersonDetector(asset_path("person_detector"), threads)
    landmarks = LandmarkNetwork(asset_path(f"landmarks_{network}"), threads)
    views = []
    for camera in cameras:
        path = folder / f"{camera.name}.mp4"
        video = VideoFile(path)
        frames = tqdm(video, desc=f"{network} {path}", total=video.info.frames, unit="frame")
        views.append(track_people(frames, detector, landmarks, fps=float(video.info.fps)))
        if not views[-1]:
            raise UserError(f"{path}: no person was found")
    return views


def _limbs(track: Track, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Limb landmarks (frames, 12, 2) px of a track and the trust in them (frames, 12), 0 where not seen."""
    pixels, trust = np.zeros((frames, 12, 2)), np.zeros((frames, 12))
    visibility = track.visibility[:, LIMB_LANDMARKS]
    pixels[track.frame_ids] = track.xy[:, LIMB_LANDMARKS]
    trust[track.frame_ids] = visibility.clip(MIN_TRUST) * track.visibility.any(-1, keepdims=True)
    return pixels, trust


def people_targets(views: Views, cameras: Sequence[Camera]) -> tuple[list[np.ndarray], list[Camera]]:
    """Where the limb joints of each person are, who is in most frames first, and the cameras with corrected
    principal points. Joints are (T, 12, 3) m in the world, smoothed, T the frames of the videos; NaN in
    frames without targets. Raises UserError if nobody is seen by two cameras."""
    frames = 1 + max(int(track.frame_ids[-1]) for tracks in views for track in tracks)
    owner = [camera for camera, tracks in enumerate(views) for _ in tracks]
    limbs = [_limbs(track, frames) for tracks in views for track in tracks]
    groups = associate(np.stack([p for p, _ in limbs]), np.stack([t for _, t in limbs]), owner, cameras)
    groups = [group for group in groups if len({owner[i] for i in group}) > 1]
    if not groups:
        raise UserError(
            "no person was found in two views: the videos and the calibration don't belong together"
        )
    pixels = np.zeros((len(groups), len(cameras), frames, 12, 2))
    trust = np.zeros(pixels.shape[:-1])
    for person, group in enumerate(groups):
        for i in group:
            seen = limbs[i][1] > 0
            pixels[person, owner[i]][seen] = limbs[i][0][seen]
            trust[person, owner[i]][seen] = limbs[i][1][seen]

    twice = (trust > 0).sum(1) > 1  # (P, T, 12)
    all_pixels = np.concatenate([p[:, seen] for p, seen in zip(pixels, twice)], axis=1)
    all_trust = np.concatenate([t[:, seen] for t, seen in zip(trust, twice)], axis=1)
    cameras = centre_cameras(all_pixels, all_trust, cameras)
    people = [_joints(p, t, cameras, i) for i, (p, t) in enumerate(zip(pixels, trust), 1)]
    people = [joints for joints in people if np.isfinite(joints).any()]
    return sorted(people, key=lambda joints: int(np.isnan(joints).sum())), cameras


def _joints(pixels: np.ndarray, trust: np.ndarray, cameras: Sequence[Camera], number: int) -> np.ndarray:
    """(T, 12, 3) smoothed joints of one person, NaN in frames without. pixels: (C, T, 12, 2)."""
    joints, errors = triangulate(pixels, trust, cameras)
    errors = np.where(trust > 0, errors, np.nan)
    found = np.isfinite(joints).all((1, 2))
    found[found] = np.nanmedian(errors[:, found], axis=(0, 2)) < MAX_ERROR
    for camera, error in zip(cameras, errors[:, found]):
        if np.isfinite(error).any():
            median = np.nanmedian(error) * camera.K[0, 0]
            log.info("person %d, %s: median reprojection error %.1f px", number, camera.name, median)
    result = np.full(joints.shape, np.nan)
    for run in long_runs(found):
        result[run] = gaussian(joints[run], SMOOTHING)
    log.info(
        "person %d: targets in %d of %d frames", number, np.isfinite(result).all((1, 2)).sum(), len(found)
    )
    return result


def long_runs(chosen: np.ndarray) -> Iterator[slice]:
    """Stretches of at least MIN_FRAMES consecutive frames that are ``chosen`` (T,)."""
    edges = np.flatnonzero(np.diff(np.r_[False, chosen, False]))
    for start, end in zip(edges[::2], edges[1::2]):
        if end - start >= MIN_FRAMES:
            yield slice(start, end)


def same_person(joints: np.ndarray, others: np.ndarray) -> bool:
    """Whether joints (T, 12, 3) m and (T', 12, 3) of the same recording are of one person."""
    both = min(len(joints), len(others))
    distance = np.linalg.norm(joints[:both] - others[:both], axis=-1)
    return bool(np.isfinite(distance).any() and np.nanmedian(distance) < SAME_PLACE)


def owner_of(track: Track, people: Sequence[np.ndarray], camera: Camera) -> int | None:
    """Index of the person whom a camera's track shows, None if it is nobody's."""
    away = []
    for joints in people:
        shown = project(joints[track.frame_ids], camera)
        distance = np.linalg.norm(shown - track.xy[:, LIMB_LANDMARKS], axis=-1) / track.bboxes[:, 2:3]
        away.append(float(np.nanmedian(distance)) if np.isfinite(distance).any() else np.inf)
    best = int(np.argmin(away))
    return best if away[best] < SAME_IMAGE else None


def database_rows(
    track: Track, joints: np.ndarray, camera: Camera, extractor: Extractor, name: str
) -> Iterator[dict[str, np.ndarray]]:
    """Rows of one person in one camera's video, a dict for each stretch of frames with targets.
    joints: (T, 12, 3) limb joints in the world, m, of all frames of the video, NaN where there are none."""
    (static,) = extractor([], [track])
    for number, run in enumerate(long_runs(np.isfinite(joints[track.frame_ids]).all((1, 2)))):
        frames = track.frame_ids[run]
        count = len(frames)
        joints3d = np.full((count, NUM_JOINTS, 3), np.nan, np.float32)
        joints3d[:, LIMB_JOINTS] = to_camera(joints[frames], camera)
        joints2d = np.zeros((count, NUM_JOINTS, 3), np.float32)
        joints2d[:, LIMB_JOINTS, :2] = project(joints[frames], camera)
        joints2d[:, LIMB_JOINTS, 2] = 1
        video = f"{name}_{number}" if number else name
        yield {
            "vid_name": np.full(count, video),
            "frame_id": frames,
            "img_name": np.array([f"{video}/{frame:06d}" for frame in frames]),
            "joints3D": joints3d,
            "joints2D": joints2d,
            "pose": np.zeros((count, 72), np.float32),
            "shape": np.zeros((count, 10), np.float32),
            "bbox": static.bboxes[run].astype(np.float32),
            "features": static.values[run].astype(np.float32),
            "landmarks": np.concatenate([track.xy, track.visibility[..., None], track.world], axis=-1)[run],
        }


def _best_network() -> str:
    try:
        asset_path("landmarks_heavy")
    except UserError:
        log.warning("targets from the smaller network: the larger one is not there")
        return "full"
    return "heavy"


def find_people(
    which: str, networks: Sequence[str], threads: int
) -> tuple[list[np.ndarray], list[Camera], dict[str, list[list[Track]]]]:
    """The people that make up the set ``which`` (see :func:`people_targets`), its cameras, and the tracks
    that each of ``networks`` finds in its videos."""
    folder = asset_path(FOLDERS[which])
    cameras = read_qualisys(folder / "Calib.qca.txt")
    best = _best_network()
    tracks = {name: track_views(folder, cameras, name, threads) for name in dict.fromkeys([*networks, best])}
    people, cameras = people_targets(tracks[best], cameras)
    if which == "single":
        return people[:1], cameras, tracks
    (calibrated,), _, _ = find_people("single", (), threads)
    others = [joints for joints in people if not same_person(joints, calibrated)]
    log.info(
        "%d of %d people are in the set of a single person too: left out",
        len(people) - len(others),
        len(people),
    )
    return others, cameras, tracks


def make_database(which: str, network: str, extractor: Extractor, threads: int) -> dict[str, np.ndarray]:
    """The whole database; ``fps``, the image's size and ``joints_valid`` (49,) hold for all its rows."""
    people, cameras, tracks = find_people(which, [network], threads)
    videos = [
        (camera, track, person)
        for camera, seen in zip(cameras, tracks[network], strict=True)
        for track in seen
        if (person := owner_of(track, people, camera)) is not None
    ]
    parts: list[dict[str, np.ndarray]] = []
    for camera, track, person in videos:
        views = {other.name for other, _, owner in videos if owner == person}
        if len(views) >= MIN_VIEWS:
            name = f"pose2sim_{camera.name}"
            if which == "multi":
                name = f"pose2sim_multi_{camera.name}_{track.person_id}"
            parts.extend(database_rows(track, people[person], camera, extractor, name))
    if not parts:
        raise UserError(f"{FOLDERS[which]}: the {network} network follows nobody who has targets")
    database = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    video = VideoFile(asset_path(FOLDERS[which]) / f"{cameras[0].name}.mp4")
    database["fps"] = np.array(float(video.info.fps))
    database["extractor"], database["fingerprint"] = np.array(extractor.name), np.array(extractor.fingerprint)
    database |= {"image_width": np.array(video.info.width), "image_height": np.array(video.info.height)}
    database["joints_valid"] = np.isin(np.arange(NUM_JOINTS), LIMB_JOINTS)
    return database


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", choices=tuple(FOLDERS), default="single", help="which recording")
    parser.add_argument(
        "--network", choices=("full", "heavy"), default="full", help="landmarks that are input"
    )
    parser.add_argument("--extractor", type=Path, default=Path("data/open/landmark_net.pth.tar"))
    parser.add_argument(
        "--out", type=Path, help="default: data/preprocessed_data/pose2sim_[multi_]{network}_test_db.pt"
    )
    parser.add_argument(
        "--threads", type=positive_integer, default=2, help="CPU threads of the landmark network"
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    extractor = LandmarkExtractor(load_landmark_net(args.extractor))
    database = make_database(args.set, args.network, extractor, args.threads)
    multi = "multi_" if args.set == "multi" else ""
    path = args.out or Path(f"data/preprocessed_data/pose2sim_{multi}{args.network}_test_db.pt")
    dump_joblib(database, path)
    log.info("%s: %d frames, %d videos", path, len(database["frame_id"]), len(set(database["vid_name"])))


if __name__ == "__main__":
    run_command(main)

"""Make a database of real video with 3D targets: one person filmed by four calibrated cameras.

    python -m lib.data_utils.open_assets --views --heavy
    python scripts/make_pose2sim_db.py [--network full] [--out FILE]

Each camera is one video. The targets are the landmarks of all four views, triangulated and smoothed: a pseudo
ground truth (good to about 1-2 cm; limb lengths vary by 1 cm) that depends on the same kind of network as the
input. The twelve limb joints are filled in, ``joints_valid`` tells which of the 49; the others are NaN.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from lib.utils.errors import leave_on_signals

    leave_on_signals()

from lib.data_utils.blazepose import LandmarkNetwork, PersonDetector
from lib.data_utils.multiview import (
    Camera,
    centre_cameras,
    project,
    read_qualisys,
    to_camera,
    triangulate,
)
from lib.data_utils.open_assets import asset_path
from lib.data_utils.preprocess import positive_integer
from lib.demo.tracking import Track, track_people
from lib.demo.video import VideoFile
from lib.models.extractors import Extractor, LandmarkExtractor, load_landmark_net
from lib.utils.errors import UserError, run_command
from lib.utils.files import dump_joblib
from lib.utils.landmark_features import LIMB_JOINTS, LIMB_LANDMARKS
from lib.utils.smoothing import gaussian

log = logging.getLogger(__name__)

NUM_JOINTS = 49
MIN_TRUST = 0.05  # of a landmark that its network calls invisible
SMOOTHING = 1.5  # sigma of the targets in frames


def track_views(folder: Path, cameras: Sequence[Camera], network: str, threads: int) -> list[Track]:
    """The person in each camera's video. Raises UserError where nobody is followed from the first to the last
    frame, for the views then cannot be laid side by side."""
    detector = PersonDetector(asset_path("person_detector"), threads)
    landmarks = LandmarkNetwork(asset_path(f"landmarks_{network}"), threads)
    tracks = []
    for camera in cameras:
        path = folder / f"{camera.name}.mp4"
        video = VideoFile(path)
        frames = tqdm(video, desc=f"{network} {camera.name}", total=video.info.frames, unit="frame")
        found = track_people(frames, detector, landmarks)
        if not found:
            raise UserError(f"{path}: no person was found")
        tracks.append(max(found, key=lambda track: len(track.frame_ids)))
    spans = {(track.frame_ids[0], track.frame_ids[-1]) for track in tracks}
    if len(spans) > 1:
        raise UserError(f"{folder}: the views do not show the person in the same frames: {sorted(spans)}")
    return tracks


def limb_targets(tracks: Sequence[Track], cameras: Sequence[Camera]) -> tuple[np.ndarray, list[Camera]]:
    """Smoothed limb joints (T, 12, 3) in the world, m, and the cameras with corrected principal points."""
    pixels = np.stack([track.xy[:, LIMB_LANDMARKS] for track in tracks])
    trust = np.stack([track.visibility[:, LIMB_LANDMARKS] for track in tracks]).clip(MIN_TRUST)
    cameras = centre_cameras(pixels, trust, cameras)
    joints, errors = triangulate(pixels, trust, cameras)
    for camera, error in zip(cameras, errors):
        log.info("%s: median reprojection error %.1f px", camera.name, np.median(error) * camera.K[0, 0])
    return gaussian(joints, SMOOTHING), cameras


def database_rows(
    track: Track, joints: np.ndarray, camera: Camera, extractor: Extractor
) -> dict[str, np.ndarray]:
    """Rows of one camera's video. joints: (T, 12, 3) limb joints in the world, m."""
    count = len(track.frame_ids)
    (static,) = extractor([], [track])
    joints3d = np.full((count, NUM_JOINTS, 3), np.nan, np.float32)
    joints3d[:, LIMB_JOINTS] = to_camera(joints, camera)
    joints2d = np.zeros((count, NUM_JOINTS, 3), np.float32)
    joints2d[:, LIMB_JOINTS, :2] = project(joints, camera)
    joints2d[:, LIMB_JOINTS, 2] = 1
    name = f"pose2sim_{camera.name}"
    return {
        "vid_name": np.full(count, name),
        "frame_id": track.frame_ids,
        "img_name": np.array([f"{name}/{frame:06d}" for frame in track.frame_ids]),
        "joints3D": joints3d,
        "joints2D": joints2d,
        "pose": np.zeros((count, 72), np.float32),
        "shape": np.zeros((count, 10), np.float32),
        "bbox": static.bboxes.astype(np.float32),
        "features": static.values.astype(np.float32),
        "landmarks": np.concatenate([track.xy, track.visibility[..., None], track.world], axis=-1),
    }


def make_database(folder: Path, network: str, extractor: Extractor, threads: int) -> dict[str, np.ndarray]:
    """The whole database; ``fps`` and ``joints_valid`` (49,) hold for all its rows."""
    cameras = read_qualisys(folder / "Calib.qca.txt")
    inputs = track_views(folder, cameras, network, threads)
    try:
        asset_path("landmarks_heavy")
        best = "heavy"
    except UserError:
        best = "full"
        log.warning("targets from the smaller network: the larger one is not there")
    joints, cameras = limb_targets(
        inputs if best == network else track_views(folder, cameras, best, threads), cameras
    )
    parts = [database_rows(t, joints, camera, extractor) for t, camera in zip(inputs, cameras)]
    database = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    database["fps"] = np.array(float(VideoFile(folder / f"{cameras[0].name}.mp4").info.fps))
    database["joints_valid"] = np.isin(np.arange(NUM_JOINTS), LIMB_JOINTS)
    return database


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--network", choices=("full", "heavy"), default="full", help="landmarks that are input"
    )
    parser.add_argument("--extractor", type=Path, default=Path("data/open/landmark_net.pth.tar"))
    parser.add_argument(
        "--out", type=Path, help="default: data/preprocessed_data/pose2sim_{network}_test_db.pt"
    )
    parser.add_argument(
        "--threads", type=positive_integer, default=2, help="CPU threads of the landmark network"
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    extractor = LandmarkExtractor(load_landmark_net(args.extractor))
    database = make_database(asset_path("views"), args.network, extractor, args.threads)
    path = args.out or Path(f"data/preprocessed_data/pose2sim_{args.network}_test_db.pt")
    dump_joblib(database, path)
    log.info("%s: %d frames, %d videos", path, len(database["frame_id"]), len(set(database["vid_name"])))


if __name__ == "__main__":
    run_command(main)

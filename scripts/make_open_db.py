"""Make the open databases (train, val, test) from motions: simulated landmarks -> static features.

    python scripts/make_open_db.py --motions FOLDER --out data/preprocessed_data

The files have the standard keys of every database of this project; ``val`` and ``test`` also keep the
landmarks, so that the landmarks themselves can be measured beside the networks. The performers of ``val`` and
``test`` are those that the extractor was not trained on. ``--list`` tells who and what they are. With
``--poses`` it is simulated per-frame pose estimates instead of landmarks, and ``poses_val_db.pt`` and
``poses_test_db.pt``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from lib.utils.errors import leave_on_signals

    leave_on_signals()

from lib.landmarks.features import landmark_vector
from lib.landmarks.flips import undo_flips
from lib.models.body import OPEN_DATA, load_body
from lib.models.extractors import LandmarkExtractor, PosesExtractor, fingerprint, load_landmark_net
from lib.models.landmark_body import LandmarkBody
from lib.models.landmark_net import LandmarkNet
from lib.open_data.motions import FPS, SHIPPED_SPLIT, Motion, MotionSampler, open_motions, trained_split
from lib.open_data.pose_noise import MIXED, PoseEstimator, pieces
from lib.open_data.simulate import IMAGE_SIZE, NOISES, Simulation, Simulator
from lib.open_data.simulated import estimated_clips
from lib.open_data.walks import walking_motions
from lib.utils.crops import crop_to_image
from lib.utils.errors import UserError, run_command
from lib.utils.files import dump_joblib
from lib.utils.geometry import rotmat_to_axis_angle
from lib.utils.options import positive_integer
from lib.utils.pose_features import POSE_FINGERPRINT

TRAIN_LENGTH, CLIPS_PER_ROUND, TEST_LENGTH = 96, 16, 160
WALKS = 6  # procedural ones among val and test: the other procedural motions hardly touch the floor


def rows(simulation: Simulation, net: LandmarkNet, keep_landmarks: bool) -> dict[str, np.ndarray]:
    """Database rows (B*T, ...) of simulated clips, without names."""
    landmarks = simulation.xy, simulation.visibility, simulation.world
    vectors, boxes = landmark_vector(*undo_flips(*landmarks))
    with torch.inference_mode():
        features = net(vectors.flatten(0, 1))
    out = {
        "joints3D": simulation.joints3d,
        "joints2D": torch.cat([simulation.joints2d, torch.ones_like(simulation.joints2d[..., :1])], -1),
        "pose": rotmat_to_axis_angle(simulation.rotmat).flatten(2),
        "shape": simulation.betas,
        "bbox": boxes,
        "features": features.unflatten(0, boxes.shape[:2]),
    }
    if keep_landmarks:
        out["landmarks"] = torch.cat([simulation.xy, simulation.visibility[..., None], simulation.world], -1)
    return {key: np.ascontiguousarray(value.flatten(0, 1), np.float32) for key, value in out.items()}


def finish(parts: list[dict[str, np.ndarray]], names: list[str], lengths: list[int]) -> dict[str, np.ndarray]:
    """Join the rows of clips and add the columns that name video, frame and image."""
    database = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    database["vid_name"] = np.repeat(np.array(names), lengths)
    database["frame_id"] = np.concatenate([np.arange(n) for n in lengths])
    database["img_name"] = np.char.add(database["vid_name"], "/simulated")
    database |= {
        "fps": np.array(FPS),
        "image_width": np.array(IMAGE_SIZE),
        "image_height": np.array(IMAGE_SIZE),
    }
    return database


def training_rows(
    motions: list[Motion], simulator: Simulator, net: LandmarkNet, frames: int
) -> dict[str, np.ndarray]:
    """Augmented clips until there are ``frames`` frames."""
    sampler, parts, names = MotionSampler(motions, simulator.generator), [], []
    rounds = max(1, round(frames / (TRAIN_LENGTH * CLIPS_PER_ROUND)))
    for k in tqdm(range(rounds), desc="open train", unit="round"):
        clips = *sampler.sample(CLIPS_PER_ROUND, TRAIN_LENGTH), sampler.shapes(CLIPS_PER_ROUND)
        parts.append(rows(simulator(*clips), net, keep_landmarks=False))
        names += [f"open_{k:05d}_{i:02d}" for i in range(CLIPS_PER_ROUND)]
    return finish(parts, names, [TRAIN_LENGTH] * len(names))


def held_out_rows(
    motions: list[Motion], simulator: Simulator, net: LandmarkNet, split: str
) -> dict[str, np.ndarray]:
    """The motions as they are, cut into pieces, each seen once by a camera; with where they are in the world
    (y up): axis-angle of the root and translation in metres."""
    parts, names, lengths = [], [], []
    for motion in tqdm(motions, desc=f"open {split}", unit="clip"):
        for start in range(0, len(motion.rotmat) - 23, TEST_LENGTH):
            piece = slice(start, min(start + TEST_LENGTH, len(motion.rotmat)))
            betas = (0.8 * torch.randn(1, 10, generator=simulator.generator)).clamp(-2, 2)
            parts.append(
                rows(simulator(motion.rotmat[None, piece], motion.trans[None, piece], betas), net, True)
            )
            parts[-1] |= {
                "world_orient": rotmat_to_axis_angle(motion.rotmat[piece, 0]).numpy(),
                "world_trans": motion.trans[piece].numpy(),
            }
            names.append(f"{motion.name}_{start:05d}")
            lengths.append(len(parts[-1]["pose"]))
    if not parts:
        raise UserError(
            f"the {split} split has no clip of 24 frames or more: give motions of its performers, or say in "
            "an index.csv who is in it (data/README.md)"
        )
    return finish(parts, names, lengths)


def estimated_rows(motions: list[Motion], body: LandmarkBody, seed: int) -> dict[str, np.ndarray]:
    """The pieces of :func:`held_out_rows` as per-frame estimates, seen in one box that follows the person."""
    generator = torch.Generator().manual_seed(seed)
    estimator, parts, names, lengths = PoseEstimator(MIXED, generator), [], [], []
    for name, rotmat, betas in tqdm(pieces(motions, generator), desc="estimates", unit="clip"):
        clips = estimated_clips(estimator, body, rotmat, betas)
        box = np.full(4, IMAGE_SIZE / 2, np.float32)
        xy = crop_to_image(clips.kp_2d[0].numpy(), box)
        parts.append(
            {
                "joints3D": clips.joints3d[0].numpy(),
                "joints2D": np.concatenate([xy, np.ones_like(xy[..., :1])], -1),
                "pose": rotmat_to_axis_angle(clips.rotmat[0]).flatten(1).numpy(),
                "shape": clips.betas[0].numpy(),
                "bbox": np.tile(box, (len(xy), 1)),
                "features": clips.vectors[0].numpy(),
            }
        )
        names.append(name)
        lengths.append(len(xy))
    if not parts:
        raise UserError("the split has no clip of 24 frames or more: give motions of its performers")
    return finish(parts, names, lengths)


def table(splits: dict[str, list[Motion]]) -> str:
    """Markdown: a row for each performer of ``train``, and for each motion of ``val`` and ``test``."""
    lines = ["| split | performer | motion | frames | what |", "|---|---|---|---|---|"]
    for split, motions in splits.items():
        names = {m.performer if split == "train" else m.name: m.performer for m in motions}
        for name, performer in names.items():
            own = [m for m in motions if name == (m.performer if split == "train" else m.name)]
            what = "; ".join(dict.fromkeys(m.description for m in own if m.description))
            motion = f"{len(own)} motions" if split == "train" else name
            frames = sum(len(m.rotmat) for m in own)
            lines.append(f"| {split} | {performer or 'unknown'} | {motion} | {frames} | {what} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--motions", default="", help="folder of motion files; default: procedural motions")
    parser.add_argument(
        "--frames", type=positive_integer, default=60_000, help="frames of the training database"
    )
    parser.add_argument("--extractor", type=Path, default=Path("data/open/landmark_net.pth.tar"))
    parser.add_argument("--out", type=Path, default=Path("data/preprocessed_data"))
    parser.add_argument(
        "--noise", choices=NOISES, default="v2", help="errors of the simulated landmarks (%(default)s)"
    )
    parser.add_argument("--poses", action="store_true", help="per-frame pose estimates instead of landmarks")
    parser.add_argument("--seed", type=positive_integer, default=1)
    parser.add_argument("--list", action="store_true", help="only print a table of the motions")
    args = parser.parse_args()
    splits = open_motions(args.motions, SHIPPED_SPLIT if args.poses else trained_split(args.extractor))
    body = load_body(OPEN_DATA)
    if not (args.motions or args.poses):
        for seed, split in enumerate(("val", "test"), start=2):
            splits[split] += walking_motions(body, WALKS, seed)
    if args.list:
        print(table(splits))
        return
    if args.poses:
        for k, split in enumerate(("val", "test")):
            database = estimated_rows(splits[split], LandmarkBody(body), args.seed + k)
            write(database, PosesExtractor.name, POSE_FINGERPRINT, args.out / f"poses_{split}_db.pt")
        return
    net = load_landmark_net(args.extractor)
    for k, split in enumerate(("val", "test", "train")):
        simulator = Simulator(body, NOISES[args.noise], torch.Generator().manual_seed(args.seed + k))
        if split == "train":
            database = training_rows(splits[split], simulator, net, args.frames)
        else:
            database = held_out_rows(splits[split], simulator, net, split)
        path = args.out / f"open_{split}_db.pt"
        write(database, LandmarkExtractor.name, fingerprint(net.state_dict()), path)


def write(database: dict[str, np.ndarray], extractor: str, mark: str, path: Path) -> None:
    database |= {"extractor": np.array(extractor), "fingerprint": np.array(mark)}
    dump_joblib(database, path)
    tqdm.write(f"{path}: {len(database['pose'])} frames, {len(set(database['vid_name']))} videos")


if __name__ == "__main__":
    run_command(main)

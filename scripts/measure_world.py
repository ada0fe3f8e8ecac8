"""Measure world paths, contacts and feet on simulated films of known motions before a static camera.

    python scripts/measure_world.py [--motions FOLDER] [--films FOLDER] [--json table.json]

Each motion is seen by a camera that stands, tilted, 0.9 to 2.4 m above the floor; its landmarks, with the
errors of real ones, go through TCMR, the fit and the world as in demo.py. Without a folder: procedural walks.
With one: its held-out performers, too; what captured feet do badly when they are put on another body, slide
and float, is taken out first (:func:`lib.motion.feet.lock_feet`). Contact is defined by the true motion: a
heel or toe slower than 0.3 m/s and lower than 4 cm. With ``--films`` three more walks are drawn as films,
which stay there, and the demo looks at those. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from lib.utils.errors import leave_on_signals

    leave_on_signals()

from lib.demo.models import OPEN_CHECKPOINT, Models, load_models
from lib.demo.options import DemoOptions
from lib.demo.pipeline import run_demo
from lib.demo.reconstruct import reconstruct
from lib.demo.render import Renderer
from lib.demo.result_folder import SCENE
from lib.demo.track import Track
from lib.landmarks.features import landmark_boxes
from lib.landmarks.flips import repair_flips
from lib.models.body import OPEN_DATA, BodyData
from lib.motion.camera import Camera
from lib.motion.feet import Skeleton, contacts_of, lock_feet
from lib.motion.height import height_of
from lib.motion.lift import resize
from lib.motion.meshes import Meshes
from lib.motion.motion import Placed, Scene
from lib.motion.scene_file import load_scene
from lib.motion.world import place_in_world
from lib.open_data.motions import FPS, open_motions
from lib.open_data.simulate import FOCAL, IMAGE_SIZE, NOISES, Simulator
from lib.open_data.walks import procedural_walk
from lib.utils.errors import run_command
from lib.utils.files import atomic_write
from lib.utils.geometry import default_focal
from lib.utils.options import positive_integer
from lib.video.writer import VideoWriter

LENGTH, SHORTEST = 300, 45  # frames of a film
DRAWN, DRAWN_WALKS = (1280, 720), 3  # size in px, and number, of films that are drawn
PLANTED_SPEED, PLANTED_HEIGHT = 0.4, 0.1  # of captured feet that are meant to stand
AFLOAT = 0.12  # metres above the floor where the lower foot often is: no motion on a floor
FLOOR_PERCENTILE = 20
WALK = 2.0  # metres from which on a path is one that errors can be told in percent of
COLUMNS = {
    "slide": "slide mm/frame",
    "sinks": "penetration mm",
    "floats": "floating mm",
    "root_height": "root error % (height given)",
    "root_scale": "root error % (one scale)",
    "f1": "contact F1",
    "tilt": "tilt °",
    "change": "change of pose mm (largest)",
}


@dataclass(frozen=True, eq=False)
class Film:
    """A true motion in the world and what a camera sees of it: ``turn`` (3, 3) from the world's axes to the
    camera's, ``eye`` (3,) its place."""

    name: str
    truth: Placed
    betas: np.ndarray
    turn: np.ndarray
    eye: np.ndarray
    track: Track


def shape(rng: np.random.Generator) -> np.ndarray:
    return np.clip(0.8 * rng.standard_normal(10), -2, 2).astype(np.float32)


def walks(body: BodyData, rng: np.random.Generator, count: int) -> Iterator[tuple[str, Placed, np.ndarray]]:
    """Name, motion and shape of procedural walks."""
    for number in range(count):
        betas = shape(rng)
        yield f"walk_{number:02d}", procedural_walk(Skeleton.of(body, betas), rng, 240), betas


def captured(
    body: BodyData, rng: np.random.Generator, folder: str
) -> Iterator[tuple[str, Placed, np.ndarray]]:
    """Held-out captured motions on a floor, on bodies of other shapes."""
    mean = Skeleton.of(body, np.zeros(10)).rest
    splits = open_motions(folder)
    for motion in [*splits["val"], *splits["test"]]:
        for start in range(0, len(motion.rotmat) - SHORTEST + 1, LENGTH):
            betas = shape(rng)
            skeleton = Skeleton.of(body, betas)
            longer = (skeleton.rest[1, 1] - skeleton.rest[7, 1]) / (mean[1, 1] - mean[7, 1])
            piece = slice(start, start + LENGTH)
            placed = Placed(motion.rotmat[piece].numpy(), longer * motion.trans[piece].numpy())
            lowest = skeleton.feet(placed)[..., 1].min(1)
            floor = np.float32(np.percentile(lowest, FLOOR_PERCENTILE))
            if np.percentile(lowest - floor, 90) > AFLOAT:
                continue
            placed = Placed(placed.rotmat, placed.transl - np.array([0, floor, 0], np.float32))
            stands = contacts_of(skeleton.feet(placed), FPS, PLANTED_SPEED, PLANTED_HEIGHT)
            yield f"{motion.name}_{start}", lock_feet(placed, skeleton, stands, FPS)[0], betas


def view(pelvis: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A camera that has a path (T, 3) in sight: turn (3, 3) and place (3,)."""
    middle = (pelvis.max(0) + pelvis.min(0)) / 2
    extent = float(np.linalg.norm(np.ptp(pelvis[:, [0, 2]], axis=0)))
    distance = max(3.2, 0.9 * extent + 2.2) * rng.uniform(1, 1.3)
    azimuth, height = rng.uniform(-np.pi, np.pi), rng.uniform(0.9, 2.4)
    eye = np.array([middle[0] + distance * np.sin(azimuth), height, middle[2] + distance * np.cos(azimuth)])
    forth = np.array([middle[0], rng.normal(0.9, 0.15), middle[2]]) - eye
    forth /= np.linalg.norm(forth)
    right = np.cross(forth, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    roll = np.radians(rng.normal(0, 2))
    about = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return about @ np.stack([right, np.cross(forth, right), forth]), eye


def film(
    name: str,
    truth: Placed,
    betas: np.ndarray,
    simulator: Simulator,
    skeleton: Skeleton,
    rng: np.random.Generator,
) -> Film:
    turn, eye = view(truth.transl + skeleton.rest[0], rng)

    def one(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.asarray(values, np.float32))[None]

    seen = simulator(one(truth.rotmat), one(truth.transl), one(betas), view=(one(turn), one(eye)))
    xy, visibility, world = repair_flips(
        *(part[0].numpy() for part in (seen.xy, seen.visibility, seen.world))
    )
    frames = np.arange(len(xy))
    track = Track(1, frames, landmark_boxes(xy), xy, visibility, world)
    return Film(name, truth, betas, turn, eye, track)


def after_alignment(path: np.ndarray, truth: np.ndarray, scaled: bool) -> float:
    """Mean distance of two paths (T, 3) after the rigid motion, or similarity, that makes it least."""
    a, b = path - path.mean(0), truth - truth.mean(0)
    u, s, vt = np.linalg.svd(a.T @ b)
    mirror = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    scale = float((s * mirror).sum() / (a**2).sum()) if scaled else 1.0
    return float(np.linalg.norm(scale * a @ (u * mirror) @ vt - b, axis=1).mean())


def measure(film: Film, scene: Scene, body: BodyData) -> dict[str, float]:
    """Of one film; ``root`` is in metres, ``path`` the metres gone."""
    motion = scene.people[0]
    skeleton, true_skeleton = Skeleton.of(body, motion.betas), Skeleton.of(body, film.betas)
    feet, true = (
        skeleton.feet(motion.world),
        contacts_of(true_skeleton.feet(film.truth), FPS),
    )
    speed = np.linalg.norm(np.diff(feet[..., [0, 2]], axis=0), axis=-1)
    root, true_root = motion.world.transl + skeleton.rest[0], film.truth.transl + true_skeleton.rest[0]
    up = film.turn.astype(np.float64) @ [0, 1, 0] @ scene.world_rotation.T @ [0, 1, 0]
    return {
        "slide": 1000 * float(speed[true[1:] & true[:-1]].mean()),
        "sinks": 1000 * float((-feet[..., 1]).clip(0)[true].mean()),
        "floats": 1000 * float(feet[..., 1].clip(0)[true].mean()),
        "hits": float((true & motion.contacts).sum()),
        "contacts": float(true.sum() + motion.contacts.sum()) / 2,
        "tilt": float(np.degrees(np.arccos(np.clip(up, -1, 1)))),
        "root_height": after_alignment(root, true_root, False),
        "root_scale": after_alignment(root, true_root, True),
        "path": float(np.linalg.norm(np.diff(true_root[:, [0, 2]], axis=0), axis=1).sum()),
        "frames": float(len(root)),
    }


def seen(film: Film, models: Models) -> Scene:
    """What the demo makes of a film's landmarks."""
    camera = Camera(int(IMAGE_SIZE), int(IMAGE_SIZE), FOCAL)
    return reconstruct(
        models, (), [film.track], camera=camera, fps=FPS, n_frames=len(film.track.xy), lock_feet=False
    )


def draw(film: Film, models: Models, path: Path) -> None:
    """The film as a video: the person on a chequered floor, under a plain sky."""
    camera = Camera(*DRAWN, default_focal(*DRAWN))
    width, height = DRAWN
    skeleton, smpl = Skeleton.of(models.body, film.betas), models.tcmr.regressor.smpl
    placed = film.truth.moved(film.turn.astype(np.float32), -film.turn @ film.eye, skeleton.rest[0])
    ys, xs = np.mgrid[:height, :width]
    rays = np.stack([xs - width / 2, ys - height / 2, np.full(xs.shape, camera.focal)], -1) @ film.turn
    rays /= camera.focal
    away = -film.eye[1] / np.minimum(rays[..., 1], -1e-6)
    tiles = np.floor(film.eye + rays * away[..., None])[..., [0, 2]].sum(-1) % 2
    background = np.where(tiles[..., None] > 0, [120, 115, 105], [150, 145, 135])
    background[(rays[..., 1] > -0.01) | (away > 40)] = 170, 190, 210
    meshes, renderer = Meshes(smpl, placed, film.betas), Renderer(models.body.faces, width, height)
    with VideoWriter(path, Fraction(int(FPS))) as video:
        for row in range(len(meshes)):
            image = renderer.render(
                background.astype(np.uint8), [(meshes[row], (0.85, 0.65, 0.55))], camera.project
            )
            video.write(image, Fraction(row, int(FPS)))


def watched(film: Film, models: Models, folder: Path) -> tuple[Film, Scene]:
    """What the demo makes of the film drawn; and the film, cut to the frames in which it saw somebody."""
    path = folder / f"{film.name}.mp4"
    draw(film, models, path)
    written = run_demo(
        DemoOptions(
            vid_file=str(path), output_folder=str(folder), base_data="", person="largest", lock_feet=False
        )
    )
    scene = load_scene(written[0].with_name(SCENE))
    frames = scene.people[0].frames
    return replace(film, truth=Placed(film.truth.rotmat[frames], film.truth.transl[frames])), scene


def results(film: Film, scene: Scene, models: Models) -> dict[str, dict[str, float]]:
    """Before and after the feet are locked."""
    height = height_of(models.body, film.betas)
    tall = [resize(models.tcmr.regressor.smpl, models.body, scene.people[0], height, scene.camera)]
    table, before = {}, place_in_world(replace(scene, people=tuple(tall)), models.body, lock=False)
    skeleton = Skeleton.of(models.body, tall[0].betas)
    for name, lock in (("before", False), ("after", True)):
        known = place_in_world(replace(scene, people=tuple(tall)), models.body, lock=lock)
        table[name] = measure(film, known, models.body)
        unknown = measure(film, place_in_world(scene, models.body, lock=lock), models.body)
        table[name]["root_scale"] = unknown["root_scale"]
        joints = [skeleton.chain(s.people[0].world)[1] for s in (before, known)]
        away = joints[1] - joints[1][:, :1] - (joints[0] - joints[0][:, :1])
        change = 1000 * np.linalg.norm(away, axis=-1)
        table[name] |= {"change": float(change.mean()), "largest": float(change.max())}
    return table


def summary(rows: list[dict[str, float]]) -> dict[str, float]:
    """Over frames; roots in percent of the way gone, of those who went some way."""
    frames = [row["frames"] for row in rows]
    names = ("slide", "sinks", "floats", "tilt", "change")
    total = {name: float(np.average([row[name] for row in rows], weights=frames)) for name in names}
    total["largest"] = max(row["largest"] for row in rows)
    total["f1"] = sum(row["hits"] for row in rows) / sum(row["contacts"] for row in rows)
    far = [row for row in rows if row["path"] > WALK]
    for name in ("root_height", "root_scale"):
        total[name] = 100 * sum(row[name] for row in far) / sum(row["path"] for row in far)
    return total | {"frames": sum(frames), "films": len(rows)}


def markdown(tables: dict[str, dict[str, dict[str, float]]]) -> str:
    lines = ["| motions | feet | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for kind, table in tables.items():
        for name, row in table.items():
            cells = [f"{row[key]:.2f}" for key in COLUMNS]
            cells[-1] = f"{row['change']:.0f} ({row['largest']:.0f})"
            lines.append(f"| {kind}, {row['films']:.0f} films | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--motions", default="", help="folder of motion files, measured beside the walks")
    parser.add_argument("--walks", type=positive_integer, default=20, help="procedural walks (%(default)s)")
    parser.add_argument("--films", type=Path, help="folder for walks that are drawn and watched")
    parser.add_argument("--noise", choices=NOISES, default="v2", help="of the landmarks (%(default)s)")
    parser.add_argument("--checkpoint", type=Path, default=Path(OPEN_DATA) / OPEN_CHECKPOINT)
    parser.add_argument("--seed", type=positive_integer, default=1)
    parser.add_argument("--json", type=Path, help="also write the numbers of every film here")
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    models = load_models(args.checkpoint, base_data="", open_dir=OPEN_DATA)
    body, rng = models.body, np.random.default_rng(args.seed)
    simulator = Simulator(body, NOISES[args.noise], torch.Generator().manual_seed(args.seed))
    sources = {"procedural walks": walks(body, rng, args.walks)}
    if args.motions:
        sources["captured motions"] = captured(body, rng, args.motions)
    films: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for kind, motions in sources.items():
        for name, truth, betas in motions:
            made = film(name, truth, betas, simulator, Skeleton.of(body, betas), rng)
            films.setdefault(kind, {})[name] = results(made, seen(made, models), models)
            tqdm.write(f"{name}: {films[kind][name]['after']}")
    if args.films:
        for name, truth, betas in walks(body, rng, DRAWN_WALKS):
            made = film(name, truth, betas, simulator, Skeleton.of(body, betas), rng)
            films.setdefault("walks drawn as films", {})[name] = results(
                *watched(made, models, args.films), models
            )
    tables = {
        kind: {side: summary([film[side] for film in found.values()]) for side in ("before", "after")}
        for kind, found in films.items()
    }
    print(markdown(tables))
    if args.json:
        with atomic_write(args.json) as temporary:
            temporary.write_text(json.dumps({"tables": tables, "films": films}, indent=2))


if __name__ == "__main__":
    run_command(main)

"""Measure what knowing the past alone costs: the live pipeline with several delays, on an open database.

    python scripts/measure_live.py [--videos N] [--json table.json]

Every row gets the same landmarks, those of the videos of ``compare_open.py``, and is measured as there, on
twelve limb joints. Offline: TCMR and the fit know the whole sequence. Live: what ``tcmr live`` makes of the
landmarks, frame by frame. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from lib.utils.errors import leave_on_signals

    leave_on_signals()

from lib.core.benchmark.comparison import tally
from lib.core.benchmark.methods import FIT, TCMR, Methods
from lib.core.benchmark.tables import markdown, summarise
from lib.core.benchmark.videos import Estimate, Posed, Video, read_videos
from lib.core.build import load_model
from lib.demo.models import Models
from lib.landmarks.blazepose import Landmarks
from lib.landmarks.features import LIMB_JOINTS
from lib.live.capture import Frame
from lib.live.person import LivePerson
from lib.models.body import OPEN_DATA, BodyData, load_body
from lib.models.extractors import LandmarkExtractor
from lib.models.inference import PreparedTCMR
from lib.motion.camera import Camera
from lib.utils.errors import run_command
from lib.utils.files import atomic_write
from lib.utils.geometry import default_focal
from lib.utils.options import positive_integer

DELAYS = (None, 7, 3, 0)
FITTED = (None, 3, 0)
_PICTURE, _POINT = np.zeros((1, 1, 3), np.uint8), np.zeros(2)


class Live:
    """The rows on one video."""

    def __init__(self, extractor: Path, checkpoint: Path, body: BodyData) -> None:
        self.offline = Methods(extractor, {TCMR: [checkpoint]}, body)
        model, cfg = load_model(checkpoint, None, body)
        self.models = Models(model, cfg, LandmarkExtractor(self.offline.net), body)
        self.prepared = PreparedTCMR(model, rows=1)

    def __call__(self, video: Video) -> dict[str, list[Estimate]]:
        offline = self.offline(video)
        rows = {f"{name}, offline": offline[name] for name in (TCMR, TCMR + FIT)}
        for fit, delays in ((False, DELAYS), (True, FITTED)):
            for wanted in delays:
                estimate, delay = self.live(video, wanted, fit)
                rows[f"TCMR{' + fit' * fit}, live, {delay} frames later"] = [estimate]
        return rows

    @torch.no_grad()
    def live(self, video: Video, delay: int | None, fit: bool) -> tuple[Estimate, int]:
        """The estimate, and the delay that it was."""
        width, height = video.image_size
        camera, fps = Camera(width, height, default_focal(width, height)), video.fps
        person = LivePerson(self.models, self.prepared, self.offline.bodies, camera, fps, delay, fit)
        found = []
        for number, row in enumerate(video.observed):
            frame = Frame(number, number / fps, _PICTURE, 0.0)
            xy, visibility, world = row[:, :2], row[:, 2], row[:, 3:]
            landmarks = Landmarks(xy, np.zeros(33), visibility, 1.0, world, _POINT, _POINT)
            found += person.push(frame, landmarks)
        true_delay = person.delay
        found += person.finish()
        rotmat, betas = (
            torch.from_numpy(np.stack([getattr(estimate, name) for estimate in found]))
            for name in ("rotmat", "betas")
        )
        joints = self.offline.bodies(rotmat, betas)[0].numpy()
        pixels = camera.project(joints + np.stack([estimate.transl for estimate in found])[:, None])
        places = joints[:, LIMB_JOINTS], pixels[:, LIMB_JOINTS]
        return Estimate(*places, Posed(rotmat.numpy(), betas.numpy())), true_delay


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", type=Path, default=Path("data/preprocessed_data/open_test_db.pt"))
    parser.add_argument("--videos", type=positive_integer, help="so many, at equal distances; default: all")
    parser.add_argument("--extractor", type=Path, default=Path(OPEN_DATA) / "landmark_net.pth.tar")
    parser.add_argument("--checkpoint", type=Path, default=Path(OPEN_DATA) / "tcmr_open.pth.tar")
    parser.add_argument("--threads", type=positive_integer, default=1)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(args.threads)
    body = load_body(OPEN_DATA)
    live, found = Live(args.extractor, args.checkpoint, body), read_videos(args.database)
    if args.videos:
        found = found[:: max(1, len(found) // args.videos)][: args.videos]
    table = summarise(tally(found, live, body, args.database.stem))
    print(f"\n{table['videos']} videos, {table['frames']} frames\n\n{markdown(table)}")
    if args.json:
        with atomic_write(args.json) as temporary:
            temporary.write_text(json.dumps(table, indent=2))


if __name__ == "__main__":
    run_command(main)

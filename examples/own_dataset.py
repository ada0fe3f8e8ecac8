"""A dataset of your own. Run as a program, this writes its databases: toy ones, replace the numbers by yours.

python examples/own_dataset.py data/preprocessed_data  (after pip install .)
python train.py --plugin examples/own_dataset.py --cfg configs/open.yaml \
    --opts TRAIN.DATASETS_3D "['Mine']" TRAIN.DATASET_EVAL Mine MODEL.FEATURE_SMOOTH 0.0
python evaluate.py --plugin examples/own_dataset.py --dataset mine --cfg configs/open.yaml \
    --checkpoint experiments/RUN
"""

import sys
from pathlib import Path

import numpy as np
from tcmr.dataset.datasets import DatasetSpec, FrameRate, register_dataset
from tcmr.utils.files import dump_joblib

register_dataset(DatasetSpec("Mine", "mine", eval_joints="common", frame_rate=FrameRate(50, "our cameras")))

if __name__ == "__main__":
    numbers, frames = np.random.default_rng(0), 40
    for split in ("train", "val", "test"):  # docs/data.md: fields, shapes, units
        database = {"vid_name": np.repeat(["walk_1", "walk_2"], frames // 2)}
        database["features"] = numbers.normal(size=(frames, 256)).astype(np.float32)
        database["joints3D"] = numbers.normal(size=(frames, 49, 3)).astype(np.float32)
        database["joints2D"] = numbers.uniform(100, 200, (frames, 49, 3)).astype(np.float32)
        database["bbox"] = np.tile(np.float32([150, 150, 120, 120]), (frames, 1))
        database["pose"], database["shape"] = np.zeros((frames, 72)), np.zeros((frames, 10))  # 0: unknown
        dump_joblib(database, Path(sys.argv[1]) / f"mine_{split}_db.pt")

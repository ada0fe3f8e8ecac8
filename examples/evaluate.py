"""Measure your own predictions with the protocol of a dataset: python evaluate.py [their.npz database.pt]"""

import sys

import numpy as np
import tcmr

if len(sys.argv) > 2:
    predictions, truth = sys.argv[1:3]
else:  # joints of two made-up videos, in metres
    rng = np.random.default_rng(0)
    truth = {name: rng.normal(0, 0.3, (50, 14, 3)) for name in ("walk", "jump")}
    predictions = {name: joints + rng.normal(0, 0.02, joints.shape) for name, joints in truth.items()}
errors = tcmr.evaluate(predictions, truth, protocol="open")
print({name: value for name, value in errors.items() if name != "per_sequence"})

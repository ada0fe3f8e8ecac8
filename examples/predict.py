"""Bodies from static features that you have: python predict.py [features.npy]"""

import sys

import numpy as np
import tcmr

predictor = tcmr.load()
features = np.load(sys.argv[1]) if len(sys.argv) > 1 else np.zeros((60, predictor.feature_size), np.float32)
bodies = predictor.predict(features, fps=30)
print({name: values.shape for name, values in bodies.items()})

"""Static features of your own, here the 33 metric landmarks of each frame as they are.

python demo.py --plugin examples/own_extractor.py --model MODEL_TRAINED_ON_THEM --vid_file my.mp4
"""

import numpy as np
from tcmr.models.extractors import EXTRACTORS, Extractor, StaticFeatures


class RawLandmarks(Extractor):
    name, feature_size, fingerprint = "raw_landmarks", 99, "raw_landmarks_1"
    needs_frames, fits = False, True  # no picture is looked at; the fit may use the same landmarks

    def __call__(self, frames, tracks, progress=lambda count: None):
        result = []
        for track in tracks:
            values = track.world.reshape(len(track.world), -1).astype(np.float32)
            result.append(StaticFeatures(values, track.bboxes))
            progress(len(values))
        return result


@EXTRACTORS.register(RawLandmarks.name)
def make(body, base_data, open_dir, device, bf16):
    return RawLandmarks()

"""Miniature raw datasets: images, and a stand-in for the ResNet that is fast and tells crops apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import scipy.io
from PIL import Image

from lib.utils.files import load_joblib


class FakeExtractor:
    """Mean colour of the four quarters of a crop. Stops the run after ``limit`` batches."""

    name = "fake"
    fingerprint = "of a fake"
    feature_size = 12

    def __init__(self, limit: int | None = None) -> None:
        self.limit, self.calls = limit, 0

    def features(self, crops: np.ndarray) -> np.ndarray:
        assert crops.shape[1:] == (224, 224, 3) and crops.dtype == np.uint8
        if self.calls == self.limit:
            raise KeyboardInterrupt
        self.calls += 1
        return quarter_means(crops)


def quarter_means(crops: np.ndarray) -> np.ndarray:
    quarters = crops.reshape(len(crops), 2, 112, 2, 112, 3).astype(np.float32)
    return quarters.mean(axis=(2, 4)).reshape(len(crops), 12)


def write_images(paths: Sequence[Path], size: tuple[int, int] = (64, 48), seed: int = 0) -> None:
    """Smooth random images of (width, height), all different."""
    rng = np.random.default_rng(seed)
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        assert cv2.imwrite(str(path), cv2.resize(small, size, interpolation=cv2.INTER_CUBIC))


def naive_features(img_names: Sequence[str], bboxes: np.ndarray, scale: float) -> np.ndarray:
    """The fake features of every row, one by one, with a crop made from three points."""
    out = []
    for name, (cx, cy, w, h) in zip(img_names, bboxes):
        image = cv2.cvtColor(cv2.imread(str(name)), cv2.COLOR_BGR2RGB)
        corners = [
            [cx - w * scale / 2, cy - h * scale / 2],
            [cx + w * scale / 2, cy - h * scale / 2],
            [cx - w * scale / 2, cy + h * scale / 2],
        ]
        matrix = cv2.getAffineTransform(np.float32(corners), np.float32([[0, 0], [224, 0], [0, 224]]))
        out.append(quarter_means(cv2.warpAffine(image, matrix, (224, 224))[None])[0])
    return np.array(out)


def read(path: Path) -> dict[str, np.ndarray]:
    """A database, in memory."""
    return {key: np.array(values) for key, values in load_joblib(path, mmap=False).items()}


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert a[key].dtype == b[key].dtype, key
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


# --------------------------------------------------------------------------------
# Raw datasets


def write_penn(folder: Path, lengths: Sequence[int]) -> list[dict[str, np.ndarray]]:
    """PennAction with videos 0001, 0002, ... of these lengths; returns their labels."""
    rng = np.random.default_rng(5)
    labels = []
    for number, n in enumerate(lengths, start=1):
        write_images(
            [folder / "frames" / f"{number:04d}" / f"{k:06d}.jpg" for k in range(1, n + 1)], seed=number
        )
        label = {
            "x": rng.uniform(10, 50, (n, 13)),
            "y": rng.uniform(5, 40, (n, 13)),
            "visibility": rng.integers(0, 2, (n, 13)).astype(float),
            "nframes": np.array([[n]]),
            "action": "baseball_pitch",
        }
        label["x"][:, 4] = 0  # an unlabelled joint
        (folder / "labels").mkdir(parents=True, exist_ok=True)
        scipy.io.savemat(folder / "labels" / f"{number:04d}.mat", label)
        labels.append(label)
    return labels


OBJECT = """<object><name>{name}</name><truncated>{truncated}</truncated><difficult>{difficult}</difficult>
<bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"""


def write_voc(root: Path) -> dict[str, np.ndarray]:
    """VOCdevkit/VOC2012 with three images; returns the RGB images by name."""
    folder = root / "VOCdevkit" / "VOC2012"
    for name in ("Annotations", "JPEGImages", "SegmentationObject"):
        (folder / name).mkdir(parents=True)
    usable = {"truncated": 0, "difficult": 0}
    objects = {  # name: (segmented, [(box, flags)])
        "2007_000001": (
            1,
            [
                ((10, 20, 70, 80), {"name": "person", **usable}),
                ((80, 10, 120, 50), {"name": "dog", "truncated": 1, "difficult": 0}),
                ((100, 60, 150, 90), {"name": "cat", **usable}),
            ],
        ),
        "2007_000002": (0, [((10, 20, 70, 80), {"name": "car", **usable})]),
        "2007_000003": (
            1,
            [
                ((10, 10, 30, 30), {"name": "bird", **usable}),  # 400 pixels: too small
                ((40, 10, 90, 90), {"name": "sofa", "truncated": 0, "difficult": 1}),
                ((100, 10, 150, 60), {"name": "tv", **usable}),
            ],
        ),
    }
    rng = np.random.default_rng(0)
    images = {}
    for name, (segmented, entries) in objects.items():
        text = "".join(OBJECT.format(*box, **flags) for box, flags in entries)
        (folder / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.jpg</filename><segmented>{segmented}</segmented>{text}</annotation>"
        )
        noise = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(cv2.resize(noise, (160, 120))).save(folder / "JPEGImages" / f"{name}.jpg", quality=95)
        images[name] = cv2.cvtColor(cv2.imread(str(folder / "JPEGImages" / f"{name}.jpg")), cv2.COLOR_BGR2RGB)
        if not segmented:
            continue
        labels = np.zeros((120, 160), np.uint8)
        for number, ((x0, y0, x1, y1), _) in enumerate(entries, start=1):
            labels[y0:y1, x0:x1] = number
        mask = Image.fromarray(labels).convert("P")
        mask.putpalette(rng.integers(0, 256, 768, dtype=np.uint8).tolist())  # colours say nothing
        mask.putdata(labels.ravel().tolist())
        mask.save(folder / "SegmentationObject" / f"{name}.png")
    return images

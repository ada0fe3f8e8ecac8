"""Occluders from a miniature Pascal VOC, and how they are pasted."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lib.data_utils import occlusion
from lib.data_utils.occlusion import load_occluders, occlude, paste, resize_by
from lib.utils.errors import UserError
from tests.raw_tools import write_voc


def test_usable_objects(tmp_path):
    images = write_voc(tmp_path)
    occluders = load_occluders(tmp_path)
    boxes = [
        ("2007_000001", 10, 20, 70, 80),
        ("2007_000001", 100, 60, 150, 90),
        ("2007_000003", 100, 10, 150, 60),
    ]
    assert [o.shape for o in occluders] == [
        ((y1 - y0) // 2, (x1 - x0) // 2, 4) for _, x0, y0, x1, y1 in boxes
    ]
    for occluder, (name, x0, y0, x1, y1) in zip(occluders, boxes):
        patch = images[name][y0:y1, x0:x1].astype(float)
        halved = patch.reshape((y1 - y0) // 2, 2, (x1 - x0) // 2, 2, 3).mean(axis=(1, 3))
        np.testing.assert_allclose(occluder[..., :3], halved, atol=0.51)
        # a soft edge where the 8 x 8 ellipse does not fit, opaque inside; the image's border does not count
        assert set(np.unique(occluder[..., 3])) <= {192, 208, 224, 240, 255} | set(range(192, 256))
        assert (occluder[5:-5, 5:-5, 3] == 255).all()
    for above in ("VOCdevkit", "VOCdevkit/VOC2012"):
        for a, b in zip(occluders, load_occluders(tmp_path / above), strict=True):
            np.testing.assert_array_equal(a, b)


def test_soft_edges(tmp_path):
    """An object inside its box gets opacity 192 in a rim of about four pixels."""
    write_voc(tmp_path)
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    labels = np.zeros((120, 160), np.uint8)
    labels[30:70, 20:60] = 1
    mask = Image.fromarray(labels).convert("P")
    mask.putpalette([0] * 768)
    mask.putdata(labels.ravel().tolist())
    mask.save(folder / "SegmentationObject" / "2007_000001.png")
    alpha = load_occluders(folder)[0][..., 3]
    assert alpha.shape == (30, 30)
    assert (alpha[:5] == 0).all() and (alpha[8:22, 8:22] == 255).all()
    assert alpha[5, 15] == 192 and alpha[15, 5] == 192 and alpha[24, 15] == 192


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("Annotations/2007_000001.xml", b"<annotation>", "2007_000001.xml is no Pascal VOC"),
        ("SegmentationObject/2007_000001.png", b"x", "2007_000001.png is damaged"),
        ("SegmentationObject/2007_000001.png", None, "2007_000001.png does not exist"),
        ("JPEGImages/2007_000003.jpg", b"x", "2007_000003.jpg is damaged"),
    ],
)
def test_damaged_files(tmp_path, file, content, message):
    write_voc(tmp_path)
    path = tmp_path / "VOCdevkit" / "VOC2012" / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_occluders(tmp_path)


def test_folder_without_voc(tmp_path):
    with pytest.raises(UserError, match="expected the unpacked Pascal VOC 2012"):
        load_occluders(tmp_path)


def test_paste_against_a_loop():
    rng = np.random.default_rng(0)
    for _ in range(30):
        height, width = rng.integers(1, 20, 2)
        patch = rng.integers(0, 256, (height, width, 4), dtype=np.uint8)
        image = rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)
        centre = rng.uniform(-8, 32, 2)
        expected = image.copy()
        left, top = round(centre[0]) - width // 2, round(centre[1]) - height // 2
        for y in range(16):
            for x in range(24):
                if 0 <= y - top < height and 0 <= x - left < width:
                    *colour, alpha = (float(v) for v in patch[y - top, x - left])
                    for c in range(3):
                        expected[y, x, c] = int(
                            alpha / 255 * colour[c] + (1 - alpha / 255) * image[y, x, c] + 1e-4
                        )
        paste(patch, image, centre)
        assert np.abs(image.astype(int) - expected).max() <= 1


def test_occlusion_covers_part_of_the_crop():
    occluders = [np.full((100, 80, 4), 255, np.uint8), np.full((60, 120, 4), 255, np.uint8)]
    image = np.zeros((224, 224, 3), np.uint8)
    rng = np.random.default_rng(3)
    covered = [(occlude(image, occluders, rng) > 0).any(axis=2).mean() for _ in range(300)]
    assert not image.any()
    assert 0.02 < np.mean(covered) < 0.4
    again = np.random.default_rng(3)
    assert [(occlude(image, occluders, again) > 0).any(axis=2).mean() for _ in range(20)] == covered[:20]


def test_number_and_sizes_of_occluders(monkeypatch):
    """1 to 7 of a fifth to the whole of their size, where an image of 256 px shows them as they are."""
    sides = []
    monkeypatch.setattr(occlusion, "paste", lambda patch, image, centre: sides.append(len(patch)))
    rng, counts = np.random.default_rng(0), []
    for _ in range(500):
        occlude(np.zeros((512, 600, 3), np.uint8), [np.zeros((100, 100, 4), np.uint8)], rng)
        counts.append(len(sides) - sum(counts))
    assert set(counts) == set(range(1, 8))
    assert np.mean(counts) == pytest.approx(4, abs=0.3)
    assert 40 <= min(sides) < 45 and 195 < max(sides) <= 200
    assert np.mean(sides) == pytest.approx(120, abs=4)


@pytest.mark.parametrize(("factor", "size"), [(0.5, (10, 5)), (2, (40, 20)), (0.01, (1, 1))])
def test_resize(factor, size):
    assert resize_by(np.zeros((10, 20, 4), np.uint8), factor).shape == (size[1], size[0], 4)

"""Focal lengths: given, from metadata, assumed."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import ExifTags, Image

from lib.demo.focal import film_camera, tag_focal
from lib.video.frames import ImageFolder
from lib.video.video_file import VideoFile

WIDTH, HEIGHT = 320, 240
DIAGONAL = float(np.hypot(36, 24))


def picture(path: Path, **tags: float) -> Path:
    """An image whose EXIF holds tags by their names in PIL."""
    exif = Image.Exif()
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    for name, value in tags.items():
        inner[ExifTags.Base[name]] = value
    Image.new("RGB", (WIDTH, HEIGHT)).save(path, exif=exif)
    return path


def film(path: Path, **tags: str) -> Path:
    """A film with tags of its own."""
    with av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata.update({name.replace("__", "."): value for name, value in tags.items()})
        stream = container.add_stream("mpeg4", rate=Fraction(30))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_images_of_a_known_lens(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture(tmp_path / "1.jpg", FocalLengthIn35mmFilm=28)
    with caplog.at_level(logging.INFO):
        camera = film_camera(ImageFolder(tmp_path))
    assert camera.source == "metadata"
    # A 28 mm lens on film sees half the diagonal under this angle; so does the camera.
    assert np.hypot(WIDTH, HEIGHT) / camera.focal == pytest.approx(DIAGONAL / 28)
    assert f"focal length: {camera.focal:.0f} px" in caplog.text
    assert "metadata" in caplog.text


def test_images_of_a_known_sensor(tmp_path: Path) -> None:
    """4 mm with 2000 px per cm are 800 px, of an image that was 1280 px wide and is 320 now."""
    path = picture(
        tmp_path / "1.jpg",
        FocalLength=4.0,
        FocalPlaneXResolution=2000.0,
        FocalPlaneResolutionUnit=3,
        ExifImageWidth=1280,
        ExifImageHeight=960,
    )
    assert film_camera(ImageFolder(tmp_path)).focal == pytest.approx(200)
    assert film_camera(VideoFile(path)).focal == pytest.approx(200)  # a photo in place of a film


def test_films_of_a_known_lens(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mov", com__apple__quicktime__camera__focal_length__35mm_equivalent="26")
    camera = film_camera(VideoFile(path))
    assert (camera.source, camera.width) == ("metadata", WIDTH)
    assert camera.focal == pytest.approx(26 / DIAGONAL * 400)


@pytest.mark.parametrize("value", ["0", "999", "nothing", ""])
def test_nonsense_is_passed_over(tmp_path: Path, value: str) -> None:
    path = film(tmp_path / "a.mov", com__apple__quicktime__camera__focal_length__35mm_equivalent=value)
    camera = film_camera(VideoFile(path))
    assert (camera.source, camera.focal) == ("default", 1.2 * WIDTH)


def test_given_length_comes_first(tmp_path: Path) -> None:
    picture(tmp_path / "1.jpg", FocalLengthIn35mmFilm=28)
    camera = film_camera(ImageFolder(tmp_path), 450.0)
    assert (camera.source, camera.focal) == ("given", 450.0)
    picture(tmp_path / "1.jpg")
    assert film_camera(ImageFolder(tmp_path)).source == "default"


def test_other_tags_say_nothing() -> None:
    assert tag_focal({"encoder": "35", "location": "x"}, WIDTH, HEIGHT) is None

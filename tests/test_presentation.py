"""What a player shows is what is analysed: films of every kind against the pictures they were made of."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from lib.video.video_file import VideoFile
from tests.video_tools import encode, quarters

SHARP = {"crf": "1", "preset": "ultrafast"}


def centres(image: np.ndarray) -> np.ndarray:
    """Colours (2, 2, 3) in the middle of an image's quarters."""
    height, width = image.shape[:2]
    return image[np.ix_([height // 4, height * 3 // 4], [width // 4, width * 3 // 4])].astype(int)


@pytest.mark.parametrize(("turns", "mirror"), itertools.product(range(4), (False, True)))
def test_all_eight_orientations(tmp_path: Path, turns: int, mirror: bool) -> None:
    """The matrix says how the stored picture is shown: turned anticlockwise, then mirrored left to right."""
    stored = quarters()
    path = encode(
        tmp_path / "a.mp4", [stored], setup=lambda s: s.set_display_rotation(90 * turns, hflip=mirror)
    )
    shown = np.rot90(stored, turns)
    shown = shown[:, ::-1] if mirror else shown
    video = VideoFile(path)
    (frame,) = video
    assert frame.shape == shown.shape
    assert (video.info.width, video.info.height) == shown.shape[1::-1]
    np.testing.assert_allclose(centres(frame), centres(shown), atol=12)


@pytest.mark.parametrize(
    ("suffix", "aspect", "size"),
    [
        (".mp4", Fraction(4, 3), (64, 48)),
        (".mkv", Fraction(16, 11), (70, 48)),
        (".avi", Fraction(1, 2), (48, 96)),
        (".ts", Fraction(2), (96, 48)),
        (".mov", Fraction(12, 11), (52, 48)),
    ],
)
def test_pixels_that_are_not_square(
    tmp_path: Path, suffix: str, aspect: Fraction, size: tuple[int, int]
) -> None:
    """Shown in its proportions, and no direction loses pixels."""
    video = VideoFile(encode(tmp_path / f"a{suffix}", [quarters(48, 48)] * 40, aspect=aspect))
    assert (video.info.width, video.info.height) == size
    for frame in video:
        assert frame.shape[1::-1] == size
        np.testing.assert_allclose(centres(frame), centres(quarters()), atol=12)


def test_narrow_pixels_turned_sideways(tmp_path: Path) -> None:
    path = encode(
        tmp_path / "a.mp4",
        [quarters(48, 48)],
        aspect=Fraction(4, 3),
        setup=lambda s: s.set_display_rotation(90),
    )
    (frame,) = VideoFile(path)
    assert frame.shape == (64, 48, 3)


def moving(n: int, width: int = 96, height: int = 64) -> list[np.ndarray]:
    """A smooth pattern that moves 3 px to the right per image."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return [
        np.repeat((128 + 60 * np.sin((x - 3 * i) / 6) + 40 * np.cos(y / 9))[..., None], 3, 2).astype(np.uint8)
        for i in range(n)
    ]


@pytest.mark.parametrize("upper_is_first", [True, False])
def test_interlaced_films_show_one_moment(tmp_path: Path, upper_is_first: bool) -> None:
    """That of the upper field, though x264 always marks the lower field as the first here."""
    images = moving(24)
    upper, lower = (images[::2], images[1::2]) if upper_is_first else (images[1::2], images[::2])
    woven = [image.copy() for image in upper]
    for frame, image in zip(woven, lower):
        frame[1::2] = image[1::2]

    def interlace(stream: av.VideoStream) -> None:
        stream.codec_context.flags |= 1 << 18

    path = encode(tmp_path / "a.mp4", woven, fps=15, options=SHARP, setup=interlace)
    timed = list(VideoFile(path).timed())
    assert [time for time, _ in timed] == [Fraction(i, 15) for i in range(12)]
    for (_, shown), image, combed in zip(timed, upper, woven):
        assert np.abs(shown.astype(int) - image).mean() < 4 < np.abs(combed.astype(int) - image).mean()


def test_progressive_films_are_left_alone(tmp_path: Path) -> None:
    images = moving(6)
    for shown, image in zip(VideoFile(encode(tmp_path / "a.mp4", images, options=SHARP)), images):
        assert np.abs(shown.astype(int) - image).mean() < 1


def hdr_film(path: Path, sdr: np.ndarray, transfer: int) -> None:
    """``sdr`` (H, W, 3) as 10 bit BT.2020 in PQ (16, white at 203 cd/m²) or HLG (18), as defined."""
    to_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    linear = ((sdr / 255.0) ** 2.4) @ to_2020.T
    if transfer == 16:
        power = (linear * 203 / 10000) ** 0.1593017578125
        signal = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    else:
        scene = linear * (linear @ [0.2627, 0.678, 0.0593])[..., None].clip(1e-6) ** (1 / 1.2 - 1) * 0.265
        with np.errstate(invalid="ignore"):
            upper = 0.17883277 * np.log(12 * scene - 0.28466892) + 0.55991073
        signal = np.where(scene <= 1 / 12, np.sqrt(3 * scene), upper)
    luma = signal @ [0.2627, 0.678, 0.0593]
    planes = [
        64 + 876 * luma,
        512 + 896 * (signal[..., 2] - luma) / 1.8814,
        512 + 896 * (signal[..., 0] - luma) / 1.4746,
    ]
    height, width = sdr.shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv444p10le"
        frame = av.VideoFrame(width, height, "yuv444p10le")
        for target in (stream.codec_context, frame):
            target.color_primaries = target.colorspace = 9
            target.color_trc, target.color_range = transfer, 1
        for plane, values in zip(frame.planes, planes):
            buffer = np.zeros((height, plane.line_size // 2), np.uint16)
            buffer[:, :width] = np.round(values)
            plane.update(buffer.tobytes())
        frame.pts, frame.time_base = 0, Fraction(1, 30)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("transfer", [16, 18])
def test_hdr_is_shown_as_on_an_ordinary_screen(tmp_path: Path, transfer: int) -> None:
    hdr_film(tmp_path / "a.mkv", quarters(), transfer)
    (shown,) = VideoFile(tmp_path / "a.mkv")
    assert np.abs(centres(shown) - centres(quarters())).max() < 30
    with av.open(str(tmp_path / "a.mkv")) as container:
        raw = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert np.abs(centres(raw) - centres(quarters())).max() > 60  # what would be seen without


@pytest.mark.parametrize("second", [(128, 96), (32, 24), (96, 48), (48, 64)])
def test_a_film_that_changes_its_size_keeps_proportions(tmp_path: Path, second: tuple[int, int]) -> None:
    """Later pictures are fitted into the size of the first; bars fill what is left."""
    parts = []
    for i, size in enumerate([(64, 48), second]):
        parts.append(encode(tmp_path / f"{i}.ts", [quarters(*size)] * 5, options=SHARP))
    (tmp_path / "a.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    frames = list(VideoFile(tmp_path / "a.ts"))
    assert {frame.shape for frame in frames} == {(48, 64, 3)}
    last = frames[-1]
    rows, columns = np.nonzero(last.max(axis=2) > 20)
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert width / height == pytest.approx(second[0] / second[1], rel=0.07)
    assert (height, width)[0] == 48 or width == 64
    inside = last[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    np.testing.assert_allclose(centres(inside), centres(quarters()), atol=14)


@pytest.mark.parametrize("attached", [False, True])
def test_the_film_is_taken_not_its_cover(tmp_path: Path, attached: bool) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 128, 128, "yuvj420p"
        if attached:
            cover.disposition = av.stream.Disposition.attached_pic
        film = container.add_stream("libx264", rate=30)
        film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.full((128, 128, 3), 255, np.uint8), format="rgb24")
        picture.pts = 0
        container.mux(cover.encode(picture))
        container.mux(cover.encode(None))
        for i in range(10):
            frame = av.VideoFrame.from_ndarray(quarters(), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 30)
            container.mux(film.encode(frame))
        container.mux(film.encode(None))
    video = VideoFile(path)
    assert (video.info.width, video.info.height, len(list(video))) == (64, 48, 10)


def test_a_photograph_is_a_film_of_one_frame(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), quarters()[..., ::-1])
    (frame,) = VideoFile(tmp_path / "a.jpg")
    np.testing.assert_allclose(centres(frame), centres(quarters()), atol=12)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_photos_with_exif(tmp_path, orientation):
    """As Pillow turns them; PyAV cannot list their side data."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 28
    path = tmp_path / "photo.jpg"
    Image.fromarray(quarters()).save(path, exif=exif, quality=95)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)), int)
    (shown,) = VideoFile(path)
    assert shown.shape == expected.shape
    assert np.abs(shown - expected).mean() < 5

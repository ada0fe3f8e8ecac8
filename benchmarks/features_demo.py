"""Features of image crops, and the demo: the description's plain order of work against the project's."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from benchmarks.case import Case
from lib.data_utils.clips import image_clip
from lib.data_utils.features import CropExtractor, FeatureStep
from lib.demo.drawing import figures
from lib.demo.models import Models, find_checkpoint, load_models
from lib.demo.options import DemoOptions
from lib.demo.pipeline import run_demo
from lib.demo.reconstruct import reconstruct
from lib.demo.render import Renderer
from lib.demo.results import write_videos
from lib.demo.track import Track
from lib.demo.tracking import track_people
from lib.landmarks.blazepose import LandmarkNetwork, PersonDetector
from lib.models.body import load_body
from lib.models.extractors import SpinExtractor
from lib.models.hmr import HMR
from lib.models.precision import cpu_has_bf16
from lib.motion.camera import Camera
from lib.motion.motion import Scene
from lib.utils.colours import Colour
from lib.utils.crops import IMAGENET_MEAN, IMAGENET_STD
from lib.utils.geometry import default_focal
from lib.utils.images import read_image
from lib.utils.pinned import asset_path
from lib.utils.prefetch import prefetch
from lib.video.video_file import VideoFile

BATCH = 64


# ------------------------------------------------------------------------ features


@cache
def network(device: torch.device) -> HMR:
    """ResNet-50 with random weights and statistics: speed does not depend on them."""
    torch.manual_seed(0)
    hmr = HMR(load_body()).eval()
    for layer in hmr.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
            layer.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return hmr.to(device)


@cache
def pictures(count: int) -> dict[str, np.ndarray]:
    """Frames of the sample video as 1280x720 JPEGs, and boxes of people's sizes in them."""
    folder = Path(tempfile.mkdtemp())
    names = []
    for i, frame in zip(range(count), VideoFile(asset_path("demo_video"))):
        names.append(str(folder / f"{i:06d}.jpg"))
        picture = cv2.resize(frame, (1280, 720), interpolation=cv2.INTER_AREA)
        cv2.imwrite(names[-1], picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    side = np.random.default_rng(0).uniform(200, 600, count)
    boxes = np.stack([np.full(count, 640.0), np.full(count, 360.0), side, side], axis=1)
    return {"img_name": np.array(names), "bbox": boxes}


def naive_crops(count: int) -> torch.Tensor:
    """Image by image: read, cut out by three points, normalised; (n, 3, 224, 224)."""
    crops = []
    for name, (cx, cy, w, h) in zip(*pictures(count).values()):
        source = np.array([[cx, cy], [cx, cy + h * 0.6], [cx + w * 0.6, cy]], np.float32)
        target = np.array([[112, 112], [112, 224], [224, 112]], np.float32)
        matrix = cv2.getAffineTransform(source, target)
        crop = cv2.warpAffine(read_image(Path(name)), matrix, (224, 224), flags=cv2.INTER_LINEAR)
        pixels = torch.from_numpy(crop).permute(2, 0, 1).float() / 255
        mean, deviation = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
        crops.append((pixels - mean) / deviation)
    return torch.stack(crops).contiguous()


@torch.no_grad()
def naive_network(batch: torch.Tensor, device: torch.device) -> np.ndarray:
    """BatchNorm as a layer of its own, channels first."""
    return network(device).feature_extractor(batch.to(device)).cpu().numpy()


def naive_features(device: torch.device) -> np.ndarray:
    """A batch of crops, then the network on it."""
    return naive_network(naive_crops(BATCH), device)


def fast_features(extractor: CropExtractor, count: int, reduced_jpeg: bool = False) -> np.ndarray:
    step = FeatureStep(extractor, batch_size=BATCH)
    return step("benchmark", image_clip(pictures(count), 1.2, reduced_jpeg))


class NoNetwork:
    """Takes crops as fast as they come: what decoding allows at most."""

    name, fingerprint, feature_size = "none", "", 1

    def features(self, crops: np.ndarray) -> np.ndarray:
        return crops[:, :1, 0, 0].astype(np.float32)


def _feature_cases(device: torch.device, count: int) -> list[Case]:
    batch = naive_crops(BATCH)
    crop = image_clip(pictures(BATCH), 1.2).crop
    assert crop is not None
    pixels = np.stack([crop(row) for row in range(BATCH)])
    plain_crops, plain_network = partial(naive_crops, BATCH), partial(naive_network, batch, device)
    plain = partial(naive_features, device)
    found = [
        Case("crops", "images", count, plain_crops, partial(fast_features, NoNetwork(), count), BATCH),
        Case("crops, reduced JPEG", "images", count, plain_crops,
             partial(fast_features, NoNetwork(), count, True), BATCH),
    ]  # fmt: skip
    exact = SpinExtractor(network(device), device)
    found.append(Case("ResNet-50, fp32", "images", BATCH, plain_network, partial(exact.features, pixels)))
    found.append(Case("features, fp32", "images", count, plain, partial(fast_features, exact, count), BATCH))
    if device.type == "cuda" or cpu_has_bf16():
        rough = SpinExtractor(network(device), device, bf16=True)
        found += [
            Case("ResNet-50, bf16", "images", BATCH, plain_network, partial(rough.features, pixels)),
            Case("features, bf16", "images", count, plain, partial(fast_features, rough, count), BATCH),
            Case("features, bf16, reduced JPEG", "images", count, plain,
                 partial(fast_features, rough, count, True), BATCH),
        ]  # fmt: skip
    return found


# ------------------------------------------------------------------------ demo


@cache
def sample_video() -> VideoFile:
    return VideoFile(asset_path("demo_video"))


@cache
def frame_count() -> int:
    return sum(1 for _ in sample_video())


@cache
def demo_models() -> Models:
    return load_models(find_checkpoint(""))


def _networks() -> tuple[PersonDetector, LandmarkNetwork]:
    threads = torch.get_num_threads()
    return (
        PersonDetector(asset_path("person_detector"), threads),
        LandmarkNetwork(asset_path("landmarks_full"), threads),
    )


@cache
def demo_tracks() -> list[Track]:
    return track_people(sample_video(), *_networks())


@cache
def demo_scene() -> Scene:
    info = sample_video().info
    return reconstruct(
        demo_models(),
        sample_video(),
        demo_tracks(),
        camera=Camera(info.width, info.height, default_focal(info.width, info.height)),
        fps=float(info.fps),
        n_frames=frame_count(),
    )


def naive_tracking() -> list[Track]:
    return track_people(sample_video(), *_networks())


def fast_tracking() -> list[Track]:
    with prefetch(sample_video(), 4) as frames:
        return track_people(frames, *_networks())


def naive_drawing(folder: Path) -> None:
    """Frame by frame: the mesh over the whole image, floating-point blending, x264's default preset."""
    source, scene, models = sample_video(), demo_scene(), demo_models()
    people = figures(scene, models.tcmr.regressor.smpl, models.body)
    width, height = source.info.width, source.info.height
    renderer = Renderer(models.body.faces, width, height, len(models.body.v_template))
    with _encoder(folder / "naive.mp4", source, preset="medium") as write:
        for frame_id, frame in enumerate(source):
            image = frame
            present = [(figure, row) for figure in people if (row := figure.motion.row(frame_id)) is not None]
            for figure, row in sorted(present, key=lambda pair: -pair[0].motion.camera.transl[pair[1], 2]):
                image = _draw_over_all(renderer, image, figure.overlay[row], scene.camera, figure.colour)
            write(image)


def _draw_over_all(
    renderer: Renderer, image: np.ndarray, verts: np.ndarray, camera: Camera, colour: Colour
) -> np.ndarray:
    height, width = image.shape[:2]
    shape = renderer._shape(verts, colour, camera.project)
    if shape is None:
        return image
    samples, depth, _ = renderer._rasterise([shape], width, height)
    surface = cv2.resize(samples, (width, height), interpolation=cv2.INTER_AREA)
    covered = cv2.resize((depth < 3.9).astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return np.clip(255 * surface + image * (1 - covered[..., None]) + 0.5, 0, 255).astype(np.uint8)


@contextmanager
def _encoder(path: Path, source: VideoFile, preset: str) -> Iterator[Callable[[np.ndarray], None]]:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=source.info.fps, options={"preset": preset})
        stream.width, stream.height, stream.pix_fmt = source.info.width, source.info.height, "yuv420p"
        yield lambda image: container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def fast_drawing(folder: Path) -> None:
    write_videos(sample_video(), demo_scene(), demo_models(), folder, DemoOptions(), lambda _: None)


def naive_demo(folder: Path) -> None:
    """Loading, tracking, bodies (the project's prediction) and drawing, one after the other."""
    demo_models.cache_clear()
    demo_tracks.cache_clear()
    demo_scene.cache_clear()
    naive_drawing(folder)


def fast_demo(folder: Path) -> None:
    run_demo(DemoOptions(output_folder=str(folder)))


def cases(device: torch.device, quick: bool) -> list[Case]:
    """The demo's cases need its downloads and a TCMR checkpoint, and run on the CPU."""
    found = _feature_cases(device, BATCH if quick else 2 * BATCH)
    if quick:
        return found
    folder, frames = Path(tempfile.mkdtemp()), frame_count()
    return [
        *found,
        Case("demo, tracking", "frames", frames, naive_tracking, fast_tracking),
        Case("demo, drawing", "frames", frames, partial(naive_drawing, folder),
             partial(fast_drawing, folder)),
        Case("demo, all", "frames", frames, partial(naive_demo, folder), partial(fast_demo, folder)),
    ]  # fmt: skip

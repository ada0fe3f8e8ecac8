"""Static features of clips: SPIN's, or those of another extractor of crops."""

from __future__ import annotations

import zlib
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from tqdm import tqdm

from ..models.body import BASE_DATA, load_body
from ..models.extractors import SpinExtractor, get_extractor
from ..utils.devices import choose_device
from ..utils.prefetch import map_ahead
from .clips import Clip
from .occlusion import load_occluders, occlude


class CropExtractor(Protocol):
    """Features of crops: (n, 224, 224, 3) uint8 RGB -> (n, feature_size) float32."""

    name: str
    fingerprint: str
    feature_size: int

    def features(self, crops: np.ndarray) -> np.ndarray: ...


class FeatureStep:
    """Static features of clips; the network and the occluders are loaded on first use.

    Args:
        extractor: used instead of SPIN.
        base_data: folder of SPIN's checkpoint.
        device: see :func:`choose_device`.
        occluders: folder of Pascal VOC 2012, to paste its objects over the crops; None for none.
        seed: of the occlusion. Each video has its own random stream, whatever was done before it.
        batch_size: crops that go through the network at once.
        workers: threads that read and crop images while the network runs.
        bf16: run SPIN in bfloat16.
    """

    def __init__(
        self,
        extractor: CropExtractor | None = None,
        *,
        base_data: str | Path = BASE_DATA,
        device: str = "auto",
        occluders: Path | None = None,
        seed: int = 1,
        batch_size: int = 64,
        workers: int = 4,
        bf16: bool = False,
    ) -> None:
        self._given, self._base_data, self._device, self._bf16 = extractor, base_data, device, bf16
        self._voc, self._seed, self._batch_size, self._workers = occluders, seed, batch_size, workers

    @cached_property
    def extractor(self) -> CropExtractor:
        """SPIN's network on the chosen device, or the one that was given."""
        if self._given is not None:
            return self._given
        device = choose_device(self._device)
        spin = get_extractor(
            SpinExtractor.name,
            load_body(self._base_data),
            base_data=self._base_data,
            device=device,
            bf16=self._bf16,
        )
        return cast(SpinExtractor, spin)

    @cached_property
    def _occluders(self) -> list[np.ndarray]:
        return load_occluders(self._voc) if self._voc is not None else []

    def __call__(self, video: str, clip: Clip) -> np.ndarray:
        """(n, F) float32 features of a clip of the video of that name."""
        assert clip.crop is not None
        features = np.empty((len(clip), self.extractor.feature_size), np.float32)
        rng = np.random.default_rng([self._seed, zlib.crc32(video.encode())])
        done = 0
        with (
            tqdm(total=len(clip), desc=video[-40:], unit="frame", leave=False) as progress,
            map_ahead(
                clip.crop, range(len(clip)), workers=self._workers, ahead=self._batch_size + self._workers
            ) as every,
        ):
            while crops := list(islice(every, self._batch_size)):
                if self._occluders:
                    crops = [occlude(crop, self._occluders, rng) for crop in crops]
                features[done : done + len(crops)] = self.extractor.features(np.stack(crops))
                done += len(crops)
                progress.update(len(crops))
        return features

"""``tcmr live``: pictures in, bodies out, until the stream ends or Ctrl-C."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import torch

from ..demo.engine import load_engine
from ..demo.options import DemoOptions
from ..models.body import BASE_DATA, OPEN_DATA
from ..motion.camera import Camera
from ..utils.errors import Terminated, UserError
from ..utils.geometry import default_focal
from .capture import Capture, Frame, Source, open_source
from .engine import LiveBody, LiveEngine
from .sinks import SINKS

log = logging.getLogger(__name__)

_REPORT_EVERY = 5.0  # seconds
_LATENCIES = 10_000  # of which the median is told


@dataclass(frozen=True)
class LiveOptions:
    """What ``tcmr live`` can be asked for; its ``--help`` documents each.

    ``delay`` is None for the model's full delay, ``sinks`` maps names of :data:`lib.live.sinks.SINKS` to
    what their options say.
    """

    source: str
    sinks: Mapping[str, str] = field(default_factory=dict)
    delay: int | None = None
    person: str = "largest"
    fit: bool = False
    drop: bool = True
    stats: bool = False
    fps: float | None = None
    focal: float | None = None
    detector: str = "full"
    model: str = ""
    base_data: str = BASE_DATA
    open_dir: str = OPEN_DATA
    device: str = "auto"


class Statistics:
    """How fast a stream is worked through. ``str`` of it is a line for people."""

    def __init__(self) -> None:
        self.captured = self.dropped = self.processed = self.results = 0
        self.start: float | None = None
        self.latest = 0.0
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)

    def add(self, frame: Frame, capture: Capture, bodies: Sequence[LiveBody]) -> None:
        """A frame is done with, and these bodies are out."""
        self.latest = time.perf_counter()
        self.start = frame.captured if self.start is None else self.start
        self.processed += 1
        self.captured, self.dropped = capture.captured, capture.dropped
        self.results += len(bodies)
        self._latencies += [self.latest - body.captured for body in bodies if body.captured is not None]

    @property
    def latency(self) -> tuple[float, float]:
        """Median and 95th percentile of the seconds from a picture to its body."""
        median, most = np.percentile(self._latencies, [50, 95]) if self._latencies else (np.nan, np.nan)
        return float(median), float(most)

    @property
    def rate(self) -> float:
        """Pictures worked through per second."""
        passed = self.latest - (self.start or 0.0)
        return self.processed / passed if self.processed and passed > 0 else 0.0

    def __str__(self) -> str:
        parts = [
            f"{self.captured} frames, {self.dropped} dropped, {self.rate:.1f} worked through per second",
            f"{self.results} bodies",
        ]
        if self._latencies:
            median, most = (1000 * value for value in self.latency)
            parts.append(f"from picture to body {median:.0f} ms (median), {most:.0f} ms (95 %)")
        return "; ".join(parts)


def run_live(options: LiveOptions) -> Statistics:
    """Run until the stream ends, or Ctrl-C, which ends it as well; the statistics are logged.

    Raises:
        UserError: see :func:`live`.
    """
    statistics = Statistics()
    try:
        for _ in live(options, statistics):
            pass
    finally:
        if statistics.processed:
            log.info("%s", statistics)
    return statistics


def live(options: LiveOptions, statistics: Statistics | None = None) -> Iterator[LiveBody]:
    """The bodies of a stream as they come, after the sinks got them. Ctrl-C ends the stream.

    Args:
        statistics: are kept up to date.

    Raises:
        UserError: the source, a sink, a checkpoint or an asset is missing or unusable, or the source gives
            no picture.
    """
    statistics = Statistics() if statistics is None else statistics
    _check(options)
    with ExitStack() as stack:
        sinks = []
        for name, target in options.sinks.items():
            sinks.append(SINKS[name](target))
            stack.callback(sinks[-1].close)
        source = stack.enter_context(open_source(options.source, options.fps))
        if source.live and not options.drop:
            raise UserError(f"{source.name} does not wait: --no-drop is for files")
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        make_engine = _prepare(options, source)
        engine, reported = None, time.perf_counter()
        try:
            with Capture(source, drop=options.drop) as capture:
                for frame in capture:
                    if engine is None:
                        engine = make_engine(frame)
                        for sink in sinks:
                            sink.begin(engine.delay)
                    for sink in sinks:
                        sink.picture(frame)
                    bodies = engine(frame)
                    for sink in sinks:
                        sink.bodies(bodies)
                    statistics.add(frame, capture, bodies)
                    yield from bodies
                    if options.stats and statistics.latest - reported > _REPORT_EVERY:
                        reported = statistics.latest
                        log.info("%s", statistics)
        except KeyboardInterrupt as interrupt:
            if isinstance(interrupt, Terminated):
                raise
            return
        if engine is None:
            raise UserError(f"{source.name}: gives no picture; is it on, and used by no other program?")
        bodies = engine.finish()
        for sink in sinks:
            sink.bodies(bodies)
        statistics.results += len(bodies)
        yield from bodies


def _check(options: LiveOptions) -> None:
    for name, value in (("fps", options.fps), ("focal", options.focal)):
        if value is not None and not 0 < value < 1e5:
            raise UserError(f"--{name} {value}: expected a number more than 0")
    if options.delay is not None and options.delay < 0:
        raise UserError(f"--delay {options.delay}: expected a number of frames, 0 or more")


def _prepare(options: LiveOptions, source: Source) -> Callable[[Frame], LiveEngine]:
    """Load all networks; the engine is made when the first frame tells the size of the pictures."""
    networks = load_engine(
        DemoOptions(
            model=options.model,
            base_data=options.base_data,
            open_dir=options.open_dir,
            device=options.device,
            detector=options.detector,
        )
    )
    models, detector, landmarks = networks.models, networks.detector, networks.landmarks
    assert detector is not None and landmarks is not None  # but where boxes or poses are given
    if not models.extractor.needs_frames:
        torch.set_num_threads(1)  # so small networks, a frame at a time, are faster without others

    def make(frame: Frame) -> LiveEngine:
        height, width = frame.image.shape[:2]
        camera = Camera(width, height, options.focal or default_focal(width, height))
        engine = LiveEngine(
            models,
            detector,
            landmarks.with_focal(camera.focal),
            camera,
            source.fps,
            delay=options.delay,
            person=options.person,
            fit=options.fit,
        )
        later = 1000 * engine.delay / source.fps
        log.info("%s: %dx%d, %.4g frames per second", source.name, width, height, source.fps)
        log.info(
            "bodies come %d frames (%.0f ms) after their pictures, and what it takes", engine.delay, later
        )
        return engine

    return make

"""All networks of the demo, loaded once for any number of films."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ..landmarks.blazepose import LandmarkNetwork
from ..models.extractors import PosesExtractor
from ..utils.devices import choose_device
from ..utils.errors import UserError
from ..utils.plugins import load_plugins
from .looking import Detector
from .models import Models, find_checkpoint, load_models
from .networks import landmark_network, person_detector
from .options import DemoOptions

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Engine:
    """All networks of the demo, to be loaded once for any number of films; ``detector`` is None where people
    are followed in given boxes only, ``landmarks``, too, where their poses are given."""

    models: Models
    landmarks: LandmarkNetwork | None
    detector: Detector | None


def load_engine(options: DemoOptions) -> Engine:
    """The networks that the options ask for.

    Raises:
        UserError: a checkpoint, an asset or a plugin is missing or unusable.
    """
    load_plugins(options.plugin)
    device = choose_device(options.device)
    checkpoint = find_checkpoint(
        options.model, options.base_data, options.open_dir, poses=bool(options.poses)
    )
    known = options.tracks or options.poses
    engine = Engine(
        landmarks=None if options.poses else landmark_network(options.detector, options.open_dir),
        detector=None if known else person_detector(options.detector, options.open_dir, device),
        models=load_models(
            checkpoint,
            base_data=options.base_data,
            open_dir=options.open_dir,
            gender=options.gender,
            device=device,
            bf16=options.bf16,
            cfg_file=options.cfg,
            opts=options.opts,
        ),
    )
    models = engine.models
    check_features(models, options)
    log.info("model: %s (%s features, %s body)", checkpoint, models.extractor.name, models.body.kind)
    return engine


def check_features(models: Models, options: DemoOptions) -> None:
    """UserError if the model reads estimates of poses and there are none, or the other way round."""
    name = models.extractor.name
    if (name == PosesExtractor.name) != bool(options.poses):
        what = "needs --poses FILE" if name == PosesExtractor.name else "cannot read --poses"
        raise UserError(
            f"--model {options.model} has {name} features, so that it {what}; choose another model"
        )
    if options.poses and options.fit:
        raise UserError("--fit moves bodies onto landmarks, and with --poses there are none: leave it out")

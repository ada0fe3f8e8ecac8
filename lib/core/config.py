"""Configuration: the schema, its defaults, YAML files, command-line options and the device they choose."""

from __future__ import annotations

import argparse
import logging
import math
import os
import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode

from ..dataset.datasets import databases
from ..utils.errors import UserError, fault, shown
from ..utils.paths import located
from ..utils.plugins import add_plugin_option, load_plugins

logger = logging.getLogger(__name__)

_SUFFIXES = (".yaml", ".yml")
_MOST_BYTES, _LONGEST, _LARGEST = 1 << 16, 4096, 1 << 63  # of a file, a text in it, a whole number
_FILES_PREFIX, _EXTRA_PREFIX = "DATASET.FILES.", "LOSS.EXTRA."  # keys below them are named by users
_MISTAKES = (KeyError, ValueError, TypeError, AttributeError, AssertionError)  # what yacs answers them with
_MISMATCH = re.compile(  # yacs's words, with all of the values
    r"Type mismatch \(<class '(.*?)'> vs\. <class '(.*?)'>\) with values \(.* vs\. (.*)\) "
    r"for config key: (.*)",
    re.DOTALL,
)
_NOT_NEGATIVE = (
    "NUM_WORKERS", "TRAIN.START_EPOCH", "TRAIN.LR_PATIENCE", "TRAIN.WARMUP_ITERS",
    "TRAIN.GEN_LR", "TRAIN.GEN_WD", "TRAIN.GEN_MOMENTUM", "TRAIN.SAVE_EVERY",
    "TRAIN.MOT_DISCR.LR", "TRAIN.MOT_DISCR.WD", "TRAIN.MOT_DISCR.MOMENTUM",
    "LOSS.KP_2D_W", "LOSS.KP_3D_W", "LOSS.SHAPE_W", "LOSS.POSE_W", "LOSS.VELOCITY_W", "LOSS.D_MOTION_LOSS_W",
    "MODEL.FEATURE_SMOOTH",
)  # fmt: skip
_POSITIVE = ("TRAIN.BATCH_SIZE", "TRAIN.RUN_LENGTH", "TRAIN.NUM_ITERS_PER_EPOCH", "MODEL.FEATURE_SIZE")
_WIDTHS = (
    "TRAIN.MOT_DISCR.HIDDEN_SIZE", "TRAIN.MOT_DISCR.ATT.SIZE", "MODEL.TGRU.HIDDEN_SIZE",
    "MODEL.REGRESSOR.HIDDEN_SIZE",
)  # fmt: skip
_DEPTHS = ("TRAIN.MOT_DISCR.NUM_LAYERS", "TRAIN.MOT_DISCR.ATT.LAYERS", "MODEL.TGRU.NUM_LAYERS")
_SHARES = ("TRAIN.DATA_2D_RATIO", "TRAIN.MOT_DISCR.ATT.DROPOUT", "MODEL.REGRESSOR.DROPOUT")
_RANGES: dict[str, tuple[float, float]] = {  # what makes sense
    **dict.fromkeys(_NOT_NEGATIVE, (0, math.inf)),
    **dict.fromkeys(_POSITIVE, (1, 1 << 20)),
    **dict.fromkeys(_WIDTHS, (1, 1 << 14)),  # networks of more do not fit in memory
    **dict.fromkeys(_DEPTHS, (1, 64)),
    **dict.fromkeys(_SHARES, (0, 1)),
    "DATASET.SEQLEN": (3, 1 << 12),  # a frame, its past and its future
}


def get_cfg_defaults() -> CfgNode:
    """The full schema with its defaults; a key that is not here is refused on merge.

    Keys, types and defaults of the original are kept. A comment "(kept)" marks keys that old files hold and
    that no longer change anything.
    """
    cfg = CfgNode()
    cfg.TITLE = "default"  # one of the five official titles selects its database files
    cfg.OUTPUT_DIR = "results"  # parent of the run folders
    cfg.EXP_NAME = "default"  # suffix of the run folder
    cfg.DEVICE = "cuda"  # used when present, else the CPU
    cfg.DEBUG = True  # (kept)
    cfg.LOGDIR = ""  # set to the run folder
    cfg.NUM_WORKERS = 8  # loader processes per stream of data; 0 loads in the training process
    cfg.DEBUG_FREQ = 1000  # (kept)
    cfg.SEED_VALUE = -1  # >= 0 fixes every random number
    cfg.render = False  # (kept)

    cfg.CUDNN = CfgNode()
    cfg.CUDNN.BENCHMARK = True
    cfg.CUDNN.DETERMINISTIC = False
    cfg.CUDNN.ENABLED = True

    cfg.TRAIN = CfgNode()
    cfg.TRAIN.DATASETS_2D = ["Insta"]  # names of lib.dataset.datasets; either list may be empty
    cfg.TRAIN.DATASETS_3D = ["MPII3D"]
    cfg.TRAIN.DATASET_EVAL = "ThreeDPW"
    cfg.TRAIN.BATCH_SIZE = 32  # 2D and 3D samples together, over all processes
    cfg.TRAIN.RUN_LENGTH = 1  # windows of a sample, each a frame later; BATCH_SIZE counts every window
    cfg.TRAIN.OVERLAP = True  # training windows: stride 1, or (False) stride SEQLEN
    cfg.TRAIN.DATA_2D_RATIO = 0.5
    cfg.TRAIN.START_EPOCH = 0
    cfg.TRAIN.END_EPOCH = 5  # exclusive
    cfg.TRAIN.PRETRAINED_REGRESSOR = ""  # SPIN-like checkpoint the regressor starts from
    cfg.TRAIN.PRETRAINED = ""  # checkpoint that evaluate.py measures
    cfg.TRAIN.RESUME = ""  # checkpoint that training continues from; "auto": the newest of EXP_NAME, if any
    cfg.TRAIN.SAVE_EVERY = 300.0  # seconds between checkpoints inside an epoch; 0: only after epochs
    cfg.TRAIN.NUM_ITERS_PER_EPOCH = 1000
    cfg.TRAIN.LR_SCHEDULE = "plateau"  # or "cosine", to zero at the last iteration
    cfg.TRAIN.LR_PATIENCE = 5  # plateau: epochs without improvement before LR / 10
    cfg.TRAIN.WARMUP_ITERS = 0  # linear warm-up of the learning rate
    cfg.TRAIN.GRAD_CLIP = 0.0  # > 0: largest norm of the gradient
    cfg.TRAIN.PRECISION = "fp32"  # or "bf16" (products in the network), "tf32" (CUDA)
    cfg.TRAIN.COMPILE = False  # torch.compile the network: slow to start, needs a C++ compiler
    cfg.TRAIN.ACCUMULATE = 1  # parts that a batch is computed in, one after the other, to need less memory
    cfg.TRAIN.GEN_OPTIM = "Adam"  # or SGD
    cfg.TRAIN.GEN_LR = 1e-4
    cfg.TRAIN.GEN_WD = 1e-4
    cfg.TRAIN.GEN_MOMENTUM = 0.9  # SGD only
    cfg.TRAIN.MOT_DISCR = CfgNode()  # motion discriminator, trained if LOSS.D_MOTION_LOSS_W > 0
    cfg.TRAIN.MOT_DISCR.SEQUENCES = 4  # predicted, and as many real, sequences of SEQLEN frames per step
    cfg.TRAIN.MOT_DISCR.OPTIM = "SGD"  # or Adam
    cfg.TRAIN.MOT_DISCR.LR = 1e-2
    cfg.TRAIN.MOT_DISCR.WD = 1e-4
    cfg.TRAIN.MOT_DISCR.MOMENTUM = 0.9  # SGD only
    cfg.TRAIN.MOT_DISCR.UPDATE_STEPS = 1  # iterations per update of the discriminator
    cfg.TRAIN.MOT_DISCR.FEATURE_POOL = "concat"  # over time: concat (mean and maximum), attention, last
    cfg.TRAIN.MOT_DISCR.HIDDEN_SIZE = 1024
    cfg.TRAIN.MOT_DISCR.NUM_LAYERS = 1
    cfg.TRAIN.MOT_DISCR.ATT = CfgNode()
    cfg.TRAIN.MOT_DISCR.ATT.SIZE = 1024
    cfg.TRAIN.MOT_DISCR.ATT.LAYERS = 1
    cfg.TRAIN.MOT_DISCR.ATT.DROPOUT = 0.1

    cfg.DATASET = CfgNode()
    cfg.DATASET.SEQLEN = 20
    cfg.DATASET.OVERLAP = 0.5  # (kept)
    cfg.DATASET.MOTIONS = ""  # folder of motion files of "Simulated" in DATASETS_3D; "": procedural motions
    cfg.DATASET.FILES = CfgNode(new_allowed=True)  # "<dataset>_<split>": file name, e.g. 3dpw_train

    cfg.LOSS = CfgNode()
    cfg.LOSS.KP_2D_W = 60.0
    cfg.LOSS.KP_3D_W = 30.0
    cfg.LOSS.SHAPE_W = 0.001
    cfg.LOSS.POSE_W = 1.0
    cfg.LOSS.VELOCITY_W = 0.0  # > 0: changes between frames, relative to KP_*_W and POSE_W; needs runs
    cfg.LOSS.EXTRA = CfgNode(new_allowed=True)  # weights of other terms of lib.core.loss.LOSS_TERMS, by name
    cfg.LOSS.D_MOTION_LOSS_W = 1.0  # > 0 trains against a motion discriminator, which needs AMASS

    cfg.MODEL = CfgNode()
    cfg.MODEL.TEMPORAL_TYPE = "gru"  # temporal encoder: "tcmr" ("gru" is the same), "vibe", "per_frame" ...
    cfg.MODEL.EXTRACTOR = "spin"  # static features: "spin", "landmarks", "poses" ...
    cfg.MODEL.FEATURE_SIZE = 2048
    cfg.MODEL.FEATURE_SMOOTH = 0.0  # frames: width of the Gaussian that features get before the windows
    cfg.MODEL.START_FROM_FEATURE = False  # the regressor, from the estimate in the middle frame's feature
    cfg.MODEL.PRECISION = "fp32"  # of prediction in evaluate.py: or "bf16", "tf32" (CUDA), "fp16" (CUDA)
    cfg.MODEL.TGRU = CfgNode()
    cfg.MODEL.TGRU.NUM_LAYERS = 1
    cfg.MODEL.TGRU.HIDDEN_SIZE = 2048
    cfg.MODEL.REGRESSOR = CfgNode()
    cfg.MODEL.REGRESSOR.HIDDEN_SIZE = 1024
    cfg.MODEL.REGRESSOR.DROPOUT = 0.5

    cfg.PATHS = CfgNode()
    cfg.PATHS.BASE_DATA = "data/base_data"  # official body model
    cfg.PATHS.PREPROCESSED = "data/preprocessed_data"  # databases
    cfg.PATHS.OPEN = "data/open"  # open body model

    cfg.COMPAT = CfgNode()  # True restores a behaviour of the original
    cfg.COMPAT.STATIC_BORDERS = True  # sequence ends see their own frame repeated; False: edge padding
    cfg.COMPAT.TRAIN_WINDOWS = False  # cut to multiples of 16, border windows repeated, short videos dropped
    cfg.COMPAT.FLOAT16_TARGETS = False  # targets rounded to half precision
    cfg.COMPAT.VALIDATION = False  # cut to multiples of 16, invalid frames kept, Accel across videos
    return cfg


def load_config(path: str | Path, opts: Sequence[str] = ()) -> CfgNode:
    """The defaults, overridden by a YAML file, overridden by ``KEY VALUE`` pairs.

    Raises:
        UserError: the file is missing or not YAML, a key is unknown, or a value has the wrong type or makes
            no sense.
    """
    cfg = get_cfg_defaults()
    path = Path(located(str(path)))
    if not path.is_file():
        raise UserError(f"configuration file {path} {fault(path)}: give an existing file with --cfg")
    if path.suffix.lower() not in _SUFFIXES:
        raise UserError(f"configuration file {path}: expected YAML, a name that ends in .yaml")
    try:
        cfg.merge_from_other_cfg(CfgNode(_read_yaml(path)))
    except (*_MISTAKES, OSError, yaml.YAMLError, RecursionError, MemoryError) as error:
        raise UserError(f"configuration file {path}: {_reason(error)}") from error
    _check_databases(cfg, str(path))
    merge_opts(cfg, opts, f"{path} or --opts")
    for node, key in _paths(cfg):
        node[key] = located(node[key])
    return cfg


def _paths(cfg: CfgNode) -> list[tuple[CfgNode, str]]:
    """Where paths stand that the project can have itself."""
    return [
        *((cfg.PATHS, key) for key in cfg.PATHS),
        *((cfg.TRAIN, key) for key in ("PRETRAINED", "PRETRAINED_REGRESSOR")),
    ]


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """YAML of plain values without references, which can unfold a small file to any size."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "write the value out instead of *name", mark)
        return super().compose_node(parent, index)


def _read_yaml(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES} bytes, as no configuration has")
    content = yaml.load(path.read_bytes(), _PlainLoader)  # a SafeLoader: it makes plain values only
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, expected keys and values")
    _check_sizes(content)
    return content


def _check_sizes(value: Any) -> None:
    """No text, number or key that those who work with it choke on."""
    if isinstance(value, (dict, list)):
        for part in value:
            if isinstance(value, dict) and not isinstance(part, str):
                raise ValueError(f"it has the key {shown(part)}, expected a name")
            _check_sizes(part)
            if isinstance(value, dict):
                _check_sizes(value[part])
    elif (isinstance(value, str) and len(value) > _LONGEST) or (
        isinstance(value, int) and not -_LARGEST <= value < _LARGEST
    ):
        raise ValueError("it holds a text or a number that is too long")


def merge_opts(cfg: CfgNode, opts: Sequence[str], origin: str = "--opts") -> None:
    """Override keys of ``cfg``, which is from ``origin``, by the ``KEY VALUE`` pairs of ``--opts``.

    Raises:
        UserError: a word is left over, a key is unknown, or a value has the wrong type or makes no sense.
    """
    if len(opts) % 2:
        raise UserError(f"--opts expects pairs KEY VALUE, got {len(opts)} words: {' '.join(opts)}")
    for key, value in zip(opts[::2], opts[1::2]):
        try:
            if key.startswith(_FILES_PREFIX):
                cfg.DATASET.FILES[key[len(_FILES_PREFIX) :]] = value
                _check_databases(cfg, origin)
            elif key.startswith(_EXTRA_PREFIX):
                cfg.LOSS.EXTRA[key[len(_EXTRA_PREFIX) :]] = float(value)
            else:
                cfg.merge_from_list([key, value])
        except _MISTAKES as error:
            raise UserError(f"--opts {key} {value}: {_reason(error)}") from error
    _check_values(to_dict(cfg), origin)


def _check_values(values: dict[str, Any], origin: str, prefix: str = "") -> None:
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict):
            _check_values(value, origin, f"{key}.")
        elif value is None or (key.startswith(_FILES_PREFIX) and not isinstance(value, str)):
            raise UserError(f"{key} is {value} in {origin}: give a value, or leave the key out")
        elif key.startswith(_EXTRA_PREFIX) and not (isinstance(value, (int, float)) and value >= 0):
            raise UserError(f"{key} is {shown(value)} in {origin}: expected a weight, a number of at least 0")
        elif isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
            raise UserError(f"{key} in {origin}: expected a number of at most 64 bits")
        elif isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{key} is {value} in {origin}: expected a finite number")
        elif key in _RANGES and not _RANGES[key][0] <= value <= _RANGES[key][1]:
            low, high = _RANGES[key]
            expected = f"at least {low}" if value < low else f"at most {high}"
            expected = f"{low} to {high}" if key in _SHARES else expected
            raise UserError(f"{key} is {value} in {origin}: expected {expected}")


def _check_databases(cfg: CfgNode, origin: str) -> None:
    """Not of a checkpoint's configuration, which may come from where there are other plugins."""
    known = databases()
    for name in cfg.DATASET.FILES:
        if name not in known:
            likely = get_close_matches(name, known, n=1)
            advice = f"did you mean {likely[0]}?" if likely else f"expected one of {', '.join(known)}"
            raise UserError(f"{_FILES_PREFIX}{name} in {origin} names no database of this project: {advice}")


def _reason(error: Exception) -> str:
    text = str(error.args[0]) if error.args and isinstance(error, KeyError) else str(error)
    if mismatch := _MISMATCH.fullmatch(text):
        wanted, found, value, key = mismatch.groups()
        return f"{key} is {shown(value)} ({found}), expected a value of type {wanted}"
    return text


def to_dict(cfg: CfgNode) -> dict[str, Any]:
    """The configuration as plain nested dicts, lists, strings and numbers."""
    return {key: to_dict(value) if isinstance(value, CfgNode) else value for key, value in cfg.items()}


def from_dict(config: dict[str, Any]) -> CfgNode:
    """The configuration that :func:`to_dict` gave, with the defaults of keys that came later.

    Raises:
        UserError: it holds an unknown key or a value of the wrong type.
    """
    cfg = get_cfg_defaults()
    try:
        _check_sizes(config)
        cfg.merge_from_other_cfg(CfgNode(config))
    except (*_MISTAKES, RecursionError, MemoryError) as error:
        raise UserError(f"the checkpoint's configuration does not fit: {_reason(error)}") from error
    _check_values(to_dict(cfg), "the checkpoint")
    return cfg


def dump_yaml(cfg: CfgNode) -> str:
    """The configuration as plain YAML, which :func:`load_config` reads back."""
    return str(yaml.safe_dump(to_dict(cfg), sort_keys=False))


def parse_args(
    description: str,
    extra: Callable[[argparse.ArgumentParser], None] | None = None,
    argv: Sequence[str] | None = None,
) -> tuple[argparse.Namespace, CfgNode]:
    """Read ``--cfg --opts --gpu --device`` and the options that ``extra`` adds to the parser.

    ``--gpu`` sets CUDA_VISIBLE_DEVICES. Returns the parsed arguments and the configuration.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--cfg", default="./configs/config.yaml", help="YAML file merged over the defaults")
    parser.add_argument(
        "--opts", nargs="+", default=[], metavar="KEY VALUE", help="override keys of the file"
    )
    parser.add_argument("--gpu", default=None, help="value for CUDA_VISIBLE_DEVICES")
    parser.add_argument(
        "--device",
        default="auto",
        help="auto (the configuration's DEVICE where present, else cpu), cpu, cuda, cuda:N or mps",
    )
    if extra is not None:
        extra(parser)
    add_plugin_option(parser)
    args = parser.parse_args(argv)
    load_plugins(args.plugin)
    if args.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = args.gpu
    return args, load_config(args.cfg, args.opts)

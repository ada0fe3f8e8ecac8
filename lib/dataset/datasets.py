"""The datasets by name, and the files they live in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from yacs.config import CfgNode

from ..utils.errors import UserError
from ..utils.registry import Registry


@dataclass(frozen=True)
class FrameRate:
    """Frames per second of a database (None if unknown), and how that is known."""

    fps: float | None
    source: str


_UNKNOWN_RATE = FrameRate(None, "the database has no fps")


@dataclass(frozen=True)
class DatasetSpec:
    """What distinguishes one dataset from another. Databases are written as docs/data.md says."""

    name: str  # in configuration files
    key: str  # in file names and on the command line
    joints2d: str = "spin"  # convention of the stored 2D joints
    crop_pixels: bool = False  # 2D joints are pixels of the crop, and there are no boxes
    has_3d: bool = True
    has_smpl: bool = True
    eval_joints: str = ""  # convention of the joints that are compared; "" = not evaluated
    eval_regressor: bool = False  # predicted joints come from the H36M regressor, else from the 49
    eval_mesh: bool = False  # ground truth pose and shape give vertices to compare
    gendered: bool = False  # can be measured against male and female bodies, by the database's `gender`
    frame_rate: FrameRate = _UNKNOWN_RATE  # of databases without `fps`; only Accel in m/s^2 depends on it
    frames: str = "all"  # which of them count, in words
    file: str = "{key}_{split}_db.pt"  # of a split's database; "" = see _FILES


DATASETS: Registry[DatasetSpec] = Registry("dataset")  # by name


def register_dataset(spec: DatasetSpec) -> DatasetSpec:
    """Make a dataset known by its name and its key.

    Raises:
        UserError: one of them is taken.
    """
    if spec.key in _keys():
        raise UserError(f"there is a dataset with the key {spec.key!r} already: give yours another")
    return DATASETS.add(spec.name, spec)


def _keys() -> dict[str, DatasetSpec]:
    return {spec.key: spec for spec in DATASETS.values()}


for _spec in (
    DatasetSpec(
        "ThreeDPW",
        "3dpw",
        "common",
        eval_joints="common",
        eval_regressor=True,
        eval_mesh=True,
        gendered=True,
        frame_rate=FrameRate(30, "3DPW's videos"),
        frames="those not `valid` are removed, and the rest is taken as contiguous",
        file="",
    ),
    DatasetSpec(
        "MPII3D",
        "mpii3d",
        has_smpl=False,
        eval_joints="mpii3d_test",
        frame_rate=FrameRate(
            25, "assumed: the test videos were recorded at 25 or 50, the database does not say"
        ),
        frames="those with `valid_i` 0 do not count, but their neighbours see them, in windows and in Accel",
        file="",
    ),
    DatasetSpec(
        "Human36M",
        "h36m",
        eval_joints="common",
        eval_regressor=True,
        frame_rate=FrameRate(25, "assumed: the 25fps databases, every other frame of 50"),
        file="",
    ),
    DatasetSpec(
        "Open",
        "open",
        eval_joints="common",
        eval_mesh=True,
        frame_rate=FrameRate(30, "the simulated camera"),
    ),
    DatasetSpec("Insta", "insta", "insta", crop_pixels=True, has_3d=False, has_smpl=False, file=""),
    DatasetSpec("PoseTrack", "posetrack", has_3d=False, has_smpl=False, file=""),
    DatasetSpec("PennAction", "pennaction", "common", has_3d=False, has_smpl=False, file=""),
):
    register_dataset(_spec)

TABLE4_3DPW = "repr_table4_3dpw_model"
TABLE4_H36M_MPII3D = "repr_table4_h36m_mpii3d_model"
TABLE6_3DPW = "repr_table6_3dpw_model"
TABLE6_MPII3D = "repr_table6_mpii3d_model"
TABLE6_H36M = "repr_table6_h36m_model"
TITLES = (TABLE4_3DPW, TABLE4_H36M_MPII3D, TABLE6_3DPW, TABLE6_MPII3D, TABLE6_H36M)

_FILES = {  # the same for every title
    "3dpw_val": "3dpw_val_db.pt",
    "3dpw_test": "3dpw_test_db.pt",
    "3dpw_val_all": "3dpw_val_all_db.pt",  # with the frames in which few joints are seen, for drawing
    "3dpw_test_all": "3dpw_test_all_db.pt",
    "mpii3d_val": "mpii3d_val_scale12_db.pt",
    "mpii3d_test": "mpii3d_val_scale12_db.pt",
    "insta_train": "insta_train_db.h5",
    "pennaction_train": "pennaction_train_scale12_db.pt",
    "amass_train": "amass_db.pt",
}
_FILES_BY_TITLE = {  # in the order of TITLES
    "3dpw_train": ("3dpw_train_occ_db.pt", *["3dpw_train_db.pt"] * 4),
    "mpii3d_train": (
        "mpii3d_train_scale12_occ_db.pt",
        "mpii3d_train_scale12_db.pt",
        "mpii3d_train_scale12_new_occ_db.pt",
        "mpii3d_train_scale12_db.pt",
        "mpii3d_train_scale1_db.pt",
    ),
    "h36m_train": (
        "h36m_train_25fps_occ_db.pt",
        "h36m_train_25fps_db.pt",
        "h36m_train_25fps_occ_db.pt",
        "h36m_train_25fps_db.pt",
        "h36m_train_25fps_tight_db.pt",
    ),
    "posetrack_train": (
        "posetrack_train_db.pt",
        "posetrack_train_db.pt",
        "posetrack_train_occ_db.pt",
        "posetrack_train_db.pt",
        "posetrack_train_db.pt",
    ),
    "h36m_val": (*["h36m_val_db.pt"] * 4, "h36m_test_front_25fps_tight_db.pt"),
    "h36m_test": (
        "",
        "h36m_test_25fps_nosmpl_db.pt",
        "",
        "",
        "h36m_test_front_25fps_tight_nosmpl_db.pt",
    ),
}


def databases() -> list[str]:
    """The keys of DATASET.FILES."""
    named = [spec.key for spec in DATASETS.values() if spec.file]
    own = {f"{key}_{split}" for key in named for split in ("train", "val", "test")}
    return sorted({*_FILES, *_FILES_BY_TITLE, *own})


def get_spec(name: str) -> DatasetSpec:
    """The dataset called ``name`` in a configuration, or by its key.

    Raises:
        UserError: there is none.
    """
    return _keys().get(name) or DATASETS[name]


def database_path(spec: DatasetSpec, split: str, cfg: CfgNode) -> Path:
    """The database of a split: from DATASET.FILES, else the official file for the configuration's TITLE.

    A name with a folder in it is used as it is; a bare name lies in PATHS.PREPROCESSED.

    Raises:
        UserError: neither says which file it is.
    """
    return find_database(f"{spec.key}_{split}", cfg, spec.file.format(key=spec.key, split=split))


def find_database(key: str, cfg: CfgNode, default: str = "") -> Path:
    """:func:`database_path` by the key ``<dataset>_<split>`` of DATASET.FILES."""
    name = cfg.DATASET.FILES.get(key) or _FILES.get(key, default)
    if not name and cfg.TITLE in TITLES and key in _FILES_BY_TITLE:
        name = _FILES_BY_TITLE[key][TITLES.index(cfg.TITLE)]
    if not name:
        raise UserError(
            f"no database {key} belongs to TITLE {cfg.TITLE!r}: name its file in DATASET.FILES.{key}"
        )
    path = Path(name)
    return path if path.parent != Path() else Path(cfg.PATHS.PREPROCESSED) / path

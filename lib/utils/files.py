"""The one place to import from for whatever opens or writes files; each kind has a module of its own."""

from .atomic import atomic_folder, atomic_write, check_writable, only_process, temporary_beside
from .checkpoints import load_checkpoint, save_checkpoint
from .hashes import sha256
from .joblib_file import dump_joblib, load_joblib
from .pickles import load_pickle, load_smpl_pickle
from .reading import load_arrays, to_array

__all__ = [
    "atomic_folder",
    "atomic_write",
    "check_writable",
    "dump_joblib",
    "load_arrays",
    "load_checkpoint",
    "load_joblib",
    "load_pickle",
    "load_smpl_pickle",
    "only_process",
    "save_checkpoint",
    "sha256",
    "temporary_beside",
    "to_array",
]

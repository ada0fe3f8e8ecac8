"""Writing files so that a reader sees the old one or the whole new one, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import shutil
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError, fault

if sys.platform != "win32":
    import fcntl

_LOCK = ".lock"
_MACHINE = f"{zlib.crc32(platform.node().encode()):08x}"
_UNWRITABLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM,
    errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST, errno.ESTALE,
}  # fmt: skip


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` that becomes ``path`` when the block ends without an error.

    The temporary file keeps the suffix (some writers choose the format by it), is flushed to disk before it
    is renamed, and is removed on an error: a reader sees the old file or the whole new one. What killed runs
    left behind there is removed. Folders are created. Of a link, the file that it points to is written.

    Raises:
        UserError: ``path`` is a folder or a device, no file can be made beside it, or the disk is full.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # /dev/null is not to be replaced
        raise UserError(f"cannot write {path}: it {fault(path)}, expected the name of a file")
    path = path.resolve() if path.is_symlink() else path
    with _writing(path, path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(path)
    with _writing(path, temporary):
        temporary.touch()
    try:
        with _writing(path, temporary):
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """As :func:`atomic_write`, for a folder: it takes the place of an earlier one as a whole.

    Raises:
        UserError: ``path`` is a file, or no folder can be made beside it.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise UserError(f"cannot write {path}: it is a file, expected a folder or nothing there")
    with _writing(path, path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_beside(path)
    try:
        with _writing(path, temporary):
            temporary.mkdir()
            yield temporary
            if path.exists():
                shutil.rmtree(path)
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _writing(path: Path, place: Path) -> Iterator[None]:
    """What the system says against writing to ``place`` becomes one line that names ``path``."""
    try:
        yield
    except OSError as error:
        if error.errno not in _UNWRITABLE or error.filename not in (None, str(place), place):
            raise
        raise UserError(
            f"cannot write {path} ({error.strerror}): make room, choose another place or mend that"
        ) from error


def temporary_beside(path: Path) -> Path:
    """A name in the folder of ``path``, with its suffix, that this process alone uses.

    Files and folders of that kind whose process has ended without removing them are removed.
    """
    pattern = re.compile(rf"\.{re.escape(path.stem)}\.{_MACHINE}-(\d+)\.tmp{re.escape(path.suffix)}")
    for entry in list(path.parent.iterdir()) if path.parent.is_dir() else []:
        match = pattern.fullmatch(entry.name)
        if match and not _runs(int(match[1])):
            _remove(entry)
    return path.with_name(f".{path.stem}.{_MACHINE}-{os.getpid()}.tmp{path.suffix}")


def _runs(process: int) -> bool:
    if os.name != "posix":  # elsewhere signal 0 is no mere question
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            entry.unlink()


@contextmanager
def only_process(folder: Path) -> Iterator[bool]:
    """Hold ``folder`` for this process while the block runs; gives False if another process holds it.

    The folder is made where it is missing, and removed afterwards if it is empty. What a killed process held
    is free again. Where the system or the disk knows no locks, every process is told True.

    Raises:
        UserError: the folder cannot be made.
    """
    lock = folder / _LOCK
    held = _take(lock)
    try:
        yield held is not None
    finally:
        if held is not None:
            lock.unlink(missing_ok=True)
            os.close(held)
            with contextlib.suppress(OSError):
                folder.rmdir()


def _take(lock: Path) -> int | None:
    """A descriptor of the locked file, None if another process has it."""
    while True:
        with _writing(lock.parent, lock.parent):
            lock.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # its holder removed it meanwhile, and the folder
            with _writing(lock.parent, lock):
                file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                if sys.platform != "win32":
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(file)
                return None
            except OSError:
                return file
            if lock.exists() and os.path.samestat(lock.stat(), os.fstat(file)):
                return file
            os.close(file)


def check_writable(path: str | Path, option: str) -> None:
    """Tell the user before the work, not after it, that a file or folder cannot be made; creates nothing.

    Raises:
        UserError: ``path`` cannot be made; ``option`` asked for it.
    """
    path = Path(path).absolute()
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise UserError(f"{option}: cannot write {path}: it {fault(path)}")
    parent = next(folder for folder in path.parents if folder.exists())
    if not parent.is_dir() or not os.access(path if path.exists() else parent, os.W_OK):
        blocked = path if path.exists() else parent
        raise UserError(f"{option}: cannot write to {blocked}; expected a place that you may write to")

"""Which films a corpus consists of, and where the results of each go."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..demo.result_folder import LONGEST_NAME, printable_name
from ..utils.errors import UserError, fault

_KINDS = "3gp avi flv m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv ts webm wmv"
SUFFIXES = frozenset(f".{kind}" for kind in _KINDS.split())


@dataclass(frozen=True)
class Film:
    """A film of a corpus: ``name`` is its path inside the corpus, with slashes; ``path`` where it lies."""

    name: str
    path: Path

    @property
    def folder(self) -> str:
        """Of its results, inside the output folder: its name with the suffix, so that no two share one."""
        return str(PurePosixPath(*map(_folder_name, PurePosixPath(self.name).parts)))

    def state(self) -> tuple[int, int]:
        """Size in bytes and time of the last change in ns, by which a changed film is noticed; (-1, 0) where
        there is no such file."""
        try:
            status = self.path.stat()
        except OSError:
            return -1, 0
        return status.st_size, status.st_mtime_ns


def find_films(corpus: str | Path, output: str | Path) -> list[Film]:
    """All films of a folder and its subfolders, or of a text list, by name.

    A list has one path per line, relative to the list's folder; empty lines and those that begin with # are
    left out. Of folders, files with the suffixes of films count, hidden ones and links to folders do not, and
    neither does ``output``, where films are drawn.

    Raises:
        UserError: there is nothing of that name, or no film in it; of a list, a line is no path, or two films
            have one name.
    """
    corpus = Path(corpus)
    if not (corpus.is_dir() or corpus.is_file()):
        raise UserError(f"{corpus} {fault(corpus)}; expected a folder of videos, or a text list of them")
    films = _in_folder(corpus, Path(output).resolve()) if corpus.is_dir() else _in_list(corpus)
    if not films:
        kinds = f"files that end in {' '.join(sorted(SUFFIXES))}" if corpus.is_dir() else "one path per line"
        raise UserError(f"{corpus} holds no videos; expected {kinds}")
    return sorted(films, key=lambda film: film.name)


def _in_folder(corpus: Path, output: Path) -> list[Film]:
    films = []
    for folder, subfolders, files in os.walk(corpus):
        subfolders[:] = [
            name for name in subfolders if name[0] != "." and (Path(folder) / name).resolve() != output
        ]
        for path in (Path(folder) / name for name in files if name[0] != "."):
            if path.suffix.lower() in SUFFIXES:
                films.append(Film(path.relative_to(corpus).as_posix(), path.absolute()))
    return films


def _in_list(corpus: Path) -> list[Film]:
    try:
        lines = corpus.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{corpus} is no text; expected a list of videos, one path per line") from None
    home = os.path.abspath(corpus.parent)  # noqa: PTH100 - links in it stay as they are
    films: dict[str, Film] = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if "\0" in line:
            raise UserError(f"{corpus}, line {number} holds a NUL character; expected the path of a video")
        if line and not line.startswith("#"):
            path = os.path.normpath(os.path.join(home, line))  # noqa: PTH118 - as written
            inside = os.path.commonpath([home, path]) == home
            name = Path(os.path.relpath(path, home)) if inside else Path(path).relative_to(Path(path).anchor)
            film = Film(name.as_posix(), Path(path))
            if film != films.setdefault(film.name, film):
                raise UserError(
                    f"{corpus}, line {number}: the results of {path} would replace those of "
                    f"{films[film.name].path}, as both are named {film.name}; put one into another list, "
                    "with another --output_folder"
                )
    return list(films.values())


def _folder_name(part: str) -> str:
    """A part of a film's name that neither steers a terminal nor is too long; another for another part."""
    name = printable_name(part)
    if name == part and len(os.fsencode(part)) <= LONGEST_NAME:
        return part
    short = name.encode(errors="replace")[: LONGEST_NAME - 10].decode(errors="ignore")
    return f"{short}~{hashlib.sha256(os.fsencode(part)).hexdigest()[:8]}"

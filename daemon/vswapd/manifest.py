"""Files that are put into a system, and what takes them away again: a list with their checksums.

A file that is there and is neither what is to be written nor what we wrote last belongs to somebody
else, who may have made it out of ours: it is kept, by `install` and by `uninstall`. What will be
written is put on the list first, and the list is removed when all that is on it has gone: what was
interrupted can be done again, and undone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from vswap.errors import UserError

__all__ = ["File", "Installed", "Step", "Verb"]

_PLACE = Path("/var/lib/vswap/installed.json")


@dataclass(frozen=True)
class File:
    """One to be installed at `path`, an absolute one in the system that it is for."""

    path: Path
    content: bytes
    mode: int = 0o644

    @property
    def digest(self) -> str:
        """What its content is known by."""
        return _digest_of(self.content)


class Verb(Enum):
    """What is done with a file. The value is how a person is told."""

    WRITE = "write"
    LEAVE = "same"
    KEEP = "keep"
    REMOVE = "remove"


@dataclass(frozen=True)
class Step:
    """One thing to be done, or not."""

    verb: Verb
    path: Path


@dataclass
class Installed:
    """What is installed in a system whose root directory is `root`.

    `files` are by path the checksums of what was written, which are several where we were
    interrupted; `directories` were made for them.
    """

    root: Path
    prefix: str | None = None
    files: dict[str, list[str]] = field(default_factory=dict)
    directories: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, root: Path) -> Installed:
        """What the list in there says; nothing if there is none. Raises `UserError`, `OSError`."""
        place = _under(root, _PLACE)
        try:
            found = json.loads(place.read_text())
            files = {str(path): _digests(known) for path, known in found["files"].items()}
            return cls(root, str(found["prefix"]), files, list(map(str, found["directories"])))
        except FileNotFoundError:
            return cls(root)
        except (ValueError, TypeError, LookupError, AttributeError):
            raise UserError(f"{place} makes no sense; look at it, and remove it") from None

    # --- What is to be done -------------------------------------------------------------------

    def to_install(self, wanted: Sequence[File]) -> list[Step]:
        """So that these are there, and no others of ours. Nothing is changed. Raises `OSError`."""
        steps = [Step(self._what_to_do(file), file.path) for file in wanted]
        names = {str(file.path) for file in wanted}
        return steps + self._removals(path for path in self.files if path not in names)

    def to_uninstall(self) -> list[Step]:
        """So that nothing of ours is there. Nothing is changed. Raises `OSError`."""
        return self._removals(self.files)

    def _what_to_do(self, file: File) -> Verb:
        found = self._digest(file.path)
        if found == file.digest:
            return Verb.LEAVE
        ours = found is None or found in self.files.get(str(file.path), [])
        return Verb.WRITE if ours else Verb.KEEP

    def _removals(self, paths: Iterable[str]) -> list[Step]:
        found = {path: self._digest(Path(path)) for path in paths}
        return [
            Step(Verb.REMOVE if digest in self.files[path] else Verb.KEEP, Path(path))
            for path, digest in found.items()
            if digest is not None
        ]

    def _digest(self, path: Path) -> str | None:
        """Of what is there: None for nothing, and what is of no file for what is none."""
        place = _under(self.root, path)
        if place.is_symlink() or place.is_dir():
            return "no file"
        try:
            return _digest_of(place.read_bytes())
        except FileNotFoundError:
            return None

    # --- Doing it -----------------------------------------------------------------------------

    def install(self, prefix: str, wanted: Sequence[File], steps: Sequence[Step]) -> None:
        """Do the steps of `to_install`, and note what is there then. Raises `OSError`."""
        files = {file.path: file for file in wanted}
        self.prefix = prefix
        self._announce([files[step.path] for step in steps if step.verb is Verb.WRITE])
        noted: dict[str, list[str]] = {}
        for step in steps:
            path = str(step.path)
            if step.verb is Verb.WRITE:
                self._make_directory(step.path.parent)
                _write(_under(self.root, step.path), files[step.path])
            if step.verb is Verb.REMOVE:
                _under(self.root, step.path).unlink(missing_ok=True)
            elif step.verb is not Verb.KEEP:
                noted[path] = [files[step.path].digest]
            elif step.path in files and path in self.files:
                noted[path] = self.files[path]  # it may become what it was
        self.files = noted
        self._save()

    def uninstall(self, steps: Sequence[Step]) -> None:
        """Do the steps of `to_uninstall`, and forget what was kept. Raises `OSError`."""
        for step in steps:
            if step.verb is Verb.REMOVE:
                _under(self.root, step.path).unlink(missing_ok=True)
        for path in self.files:
            _beside(_under(self.root, Path(path))).unlink(missing_ok=True)
        made = sorted({Path(path) for path in self.directories}, reverse=True)
        self._remove_empty(path for path in made if path not in _PLACE.parents)
        place = _under(self.root, _PLACE)
        for file in (_beside(place), place):
            file.unlink(missing_ok=True)
        self._remove_empty([_PLACE.parent, *(path for path in made if path in _PLACE.parents)])

    def _announce(self, files: Sequence[File]) -> None:
        """Put on the list what will be there soon, beside what is."""
        for file in files:
            self.files.setdefault(str(file.path), []).append(file.digest)
        places = [_PLACE, *(file.path for file in files)]
        above = {parent for place in places for parent in place.parents}
        missing = {str(path) for path in above if not _under(self.root, path).is_dir()}
        self.directories = sorted(missing.union(self.directories))
        self._make_directory(_PLACE.parent)
        self._save()

    def _make_directory(self, path: Path) -> None:
        place = _under(self.root, path)
        if not place.is_dir():
            self._make_directory(path.parent)
            place.mkdir(mode=0o755)

    def _remove_empty(self, directories: Iterable[Path]) -> None:
        for path in directories:
            with suppress(OSError):  # something else is in it, or it is gone
                _under(self.root, path).rmdir()

    def _save(self) -> None:
        values: Mapping[str, object] = {
            "prefix": self.prefix,
            "files": self.files,
            "directories": self.directories,
        }
        text = json.dumps(values, indent=2) + "\n"
        _write(_under(self.root, _PLACE), File(_PLACE, text.encode()))


def _digest_of(content: bytes) -> str:
    from hashlib import sha256  # noqa: PLC0415  # it takes longer than most commands do

    return sha256(content).hexdigest()


def _digests(found: object) -> list[str]:
    """As a list has them; one of vswap's first has one of each file. Raises `TypeError`."""
    if isinstance(found, str):
        return [found]
    if not isinstance(found, list):
        raise TypeError
    return list(map(str, found))


def _under(root: Path, path: Path) -> Path:
    """Where a path of the system is, as we see it."""
    return root / path.relative_to("/")


def _beside(place: Path) -> Path:
    """Where a file is until all of it is there."""
    return place.with_name(f".{place.name}.vswap-new")


def _write(place: Path, file: File) -> None:
    """Replace what is there as a whole."""
    new = _beside(place)
    new.unlink(missing_ok=True)
    try:
        new.write_bytes(file.content)
        new.chmod(file.mode)
        new.replace(place)
    except BaseException:
        new.unlink(missing_ok=True)
        raise

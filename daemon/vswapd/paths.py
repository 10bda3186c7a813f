"""Paths as a person types them."""

from __future__ import annotations

import errno
import os
from pathlib import Path, PurePath

from vswap.errors import UserError

__all__ = ["absolute", "check_path", "target", "unusable"]

_PATH_MAX, _NAME_MAX = 4096, 255
"""Bytes of a path with its NUL, and of each name in it: linux/limits.h."""


def absolute(path: str) -> Path:
    """`path` from the root on; links and dots in it stay.

    Raises `UserError` if it is relative to a working directory that somebody has removed.
    """
    try:
        return Path(path).absolute()
    except FileNotFoundError:
        raise unusable(path, "the working directory is gone") from None


def check_path(path: str, what: str) -> None:
    """Raise `UserError` unless `path` is absolute, and can be one. `what` names the setting."""
    if not PurePath(path).is_absolute():
        raise UserError(f"{what} {path!r} must be an absolute path")
    try:
        encoded = os.fsencode(path)
    except UnicodeEncodeError:
        encoded = b"\0"
    if b"\0" in encoded:
        raise UserError(f"{what} {path!r} is no path")
    if len(encoded) >= _PATH_MAX or max(map(len, encoded.split(b"/"))) > _NAME_MAX:
        raise unusable(f"{what} {path!r}", os.strerror(errno.ENAMETOOLONG))


def target(path: Path) -> Path | None:
    """Where a symbolic link leads to; None for what is none. Raises `UserError` if nobody can say.

    The name is too long, say, or in a directory that is not for us.
    """
    try:
        return path.readlink() if path.is_symlink() else None
    except OSError as error:
        raise unusable(path, error.strerror) from None


def unusable(path: str | Path, why: str | None) -> UserError:
    """The mistake of who has typed a path that is none here."""
    return UserError(f"{path} cannot be used: {why}")

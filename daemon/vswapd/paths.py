"""Paths as a person types them."""

from __future__ import annotations

from pathlib import Path

from vswap.errors import UserError

__all__ = ["absolute", "target", "unusable"]


def absolute(path: str) -> Path:
    """`path` from the root on; links and dots in it stay.

    Raises `UserError` if it is relative to a working directory that somebody has removed.
    """
    try:
        return Path(path).absolute()
    except FileNotFoundError:
        raise unusable(path, "the working directory is gone") from None


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

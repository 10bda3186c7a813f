"""A TOML file: read with an eye on who could have written it, and its mistakes told in one line."""

from __future__ import annotations

import os
import stat
from codecs import BOM_UTF8

from vswap.errors import UserError

__all__ = ["read_toml"]

_MAX_BYTES = 1 << 20


def read_toml(path: str) -> dict[str, object]:
    """What stands in the file.

    Raises `UserError`, which leaves it to the caller to name the file, for what cannot be read or
    is no TOML; and, if root reads it, for what others could have written.
    """
    return _parse(_read(path))


def _read(path: str) -> bytes:
    try:
        # A FIFO without a writer must not be waited for.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            _check_trust(os.fstat(fd))
            content = _content(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}") from None
    return content


def _content(fd: int) -> bytes:
    with os.fdopen(fd, "rb", closefd=False) as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise UserError("is longer than 1 MiB, which no configuration is")
    return content


def _check_trust(found: os.stat_result) -> None:
    """Raise `UserError` unless it is a file, and for root one that only root can write.

    Of the opened file, so symbolic links are judged by what they lead to.
    """
    if not stat.S_ISREG(found.st_mode):
        raise UserError("is not a regular file")
    if os.geteuid() != 0:
        return
    if found.st_uid != 0:
        raise UserError(f"belongs to user {found.st_uid}, who could change it; `chown root` it")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UserError("can be written by others than root; `chmod go-w` it")


def _parse(content: bytes) -> dict[str, object]:
    import tomllib  # noqa: PLC0415  # most commands read no configuration

    if content.startswith(BOM_UTF8):  # some editors put it there, and no editor shows it
        raise UserError("starts with a byte order mark, which TOML has not; save it without one")
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"is not TOML: bytes that are not UTF-8 (at line {line})") from None
    except ValueError as error:
        last = content.rstrip().count(b"\n") + 1
        reason = str(error).replace("(at end of document)", f"(at line {last}, the last)")
        raise UserError(f"is not TOML: {reason}") from None
    except RecursionError:
        raise UserError("is not TOML that anybody needs: nested too deeply") from None

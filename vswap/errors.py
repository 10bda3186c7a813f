"""The one error hierarchy.

Three families, told apart by who has to act:

* `UserError`: a person asked for something impossible. One line, what is wrong and what to
  do about it; the command line prints it and exits with 2.
* `RequestError`: a request from the kernel cannot be served. Carries the errno that the
  reply will hold; nothing else about it reaches the kernel.
* `ProtocolError`: bytes that are no request at all.
"""

from __future__ import annotations

import errno

__all__ = [
    "CorruptError",
    "DiskFullError",
    "FullError",
    "MediumError",
    "NoDataError",
    "ProtocolError",
    "RangeError",
    "RequestError",
    "StateError",
    "UnsupportedError",
    "UserError",
    "VswapError",
]


class VswapError(Exception):
    """Base of every error this project raises on purpose."""


class UserError(VswapError):
    """A person's mistake, or a machine that cannot do what was asked. One line, no traceback."""


class ProtocolError(VswapError):
    """Bytes from the channel that do not form a request.

    `unique` names the message where that much of it could be read, so that a request can
    be answered instead of left hanging. It is 0, which no request has, where it could not.
    """

    def __init__(self, message: str, *, unique: int = 0) -> None:
        """Say in one sentence what is wrong with the message called `unique`."""
        super().__init__(message)
        self.unique = unique


class StateError(VswapError):
    """State files of another version or geometry than this code and these settings."""


class RequestError(VswapError):
    """A request that is answered with `errno`."""

    errno: int = errno.EIO


class RangeError(RequestError):
    """A range that does not lie on the device."""

    errno = errno.EINVAL


class UnsupportedError(RequestError):
    """A request this file has no meaning for (an unknown fallocate mode, say)."""

    errno = errno.EOPNOTSUPP


class FullError(RequestError):
    """No memory may be taken for this write. The kernel keeps the page."""

    errno = errno.ENOSPC


class DiskFullError(FullError):
    """The backing has no room. What was to go there stays in memory: it is nobody's error."""


class CorruptError(RequestError):
    """A page that cannot be read back exactly. Never answered with other data."""

    errno = errno.EIO


class MediumError(RequestError):
    """A page on disk that the disk does not give. Never answered with other data."""

    errno = errno.EIO


class NoDataError(RequestError):
    """A seek for data or a hole from where there is none."""

    errno = errno.ENXIO

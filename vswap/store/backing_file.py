"""A backing that lies in a file or on a block device.

The first MiB is vswap's own: the label (vswap/store/label.py) in its first block, zeros in the
rest. Disk segments follow. Everything is read and written with O_DIRECT, past the page cache:
a page that was written out to free memory must not be in memory still.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from contextlib import suppress

from vswap.errors import UserError
from vswap.store import label
from vswap.store.backing import BLOCK, aligned
from vswap.store.backing_make import LABEL_SIZE, NO_ROOM, fill, whole_segments
from vswap.store.backing_open import check_size, length_of, open_checked, room_in

__all__ = ["FileBacking"]


class FileBacking:
    """A `Backing` over a regular file or a block device, which it has for itself.

    `read` and `write` take no lock. `grow` has one of its own and so has the note, so that a
    note need not wait until a file has grown.
    """

    def __init__(self, fd: int, name: str) -> None:
        """Use `open`. `fd`, which belongs to the backing then, has passed all checks."""
        self.name = name
        self._fd = fd
        self._is_device = stat.S_ISBLK(os.fstat(fd).st_mode)
        self._size = room_in(length_of(fd))
        self._growing = threading.Lock()
        self._labelling = threading.Lock()
        self._block = aligned(BLOCK)  # only with _labelling

    @classmethod
    def open(cls, path: str, size: int | None = None) -> FileBacking:
        """The backing at `path`, with room for `size` bytes of segments if that is given.

        It has all the room that is there, which may be more. Raises `UserError` with the reason
        why it cannot be used, and has changed nothing then.
        """
        fd = open_checked(path, size)
        try:
            return cls(fd, path)
        except BaseException:
            os.close(fd)
            raise

    def fileno(self) -> int:
        """The descriptor. A duplicate of it keeps the file for the device, too."""
        return self._fd

    @property
    def size(self) -> int:
        """Bytes for disk segments."""
        return self._size

    def read(self, offset: int, into: memoryview) -> None:
        """Also an `OSError` if less comes, which is a file that was truncated."""
        self._check_range(offset, into)
        if os.preadv(self._fd, [into], LABEL_SIZE + offset) != len(into):
            raise OSError(errno.EIO, "short read", self.name)

    def write(self, offset: int, data: memoryview) -> None:
        """Also an `OSError` if less is written, or the file was truncated.

        Then a write would make it longer again, and with a hole in it.
        """
        self._check_range(offset, data)
        self._check_length()
        if os.pwritev(self._fd, [data], LABEL_SIZE + offset) != len(data):
            raise OSError(errno.EIO, "short write", self.name)

    def grow(self, size: int) -> None:
        """Allocate and fill a file; look how large a device is now. As it was if that fails."""
        size = whole_segments(size)
        with self._growing:
            if size < self._size:
                raise UserError(
                    f"{self.name} has room for {self._size >> 20} MiB already; it does not shrink"
                )
            if self._is_device:
                check_size(self.name, self._fd, size)
                self._size = room_in(length_of(self._fd))
            else:
                self._grow_file(size)
                self._size = size

    def load_note(self) -> bytes:
        """The note in the label; `OSError` also if something else has been written there."""
        with self._labelling:
            if os.preadv(self._fd, [self._block], 0) != BLOCK:
                raise OSError(errno.EIO, "short read", self.name)
            note = label.unpack(bytes(self._block))
        if note is None:
            raise OSError(errno.EIO, "the label was overwritten", self.name)
        return note

    def save_note(self, note: bytes) -> None:
        """On the medium, not only in its cache, when this returns."""
        self._check_length()
        with self._labelling:
            self._block[:] = label.pack(note)
            if os.pwritev(self._fd, [self._block], 0, os.RWF_DSYNC) != BLOCK:
                raise OSError(errno.EIO, "short write", self.name)

    def close(self) -> None:
        """Another device may have it then."""
        os.close(self._fd)

    def _check_range(self, offset: int, view: memoryview) -> None:
        assert offset % BLOCK == len(view) % BLOCK == 0
        if offset < 0 or offset + len(view) > self._size:
            raise OSError(errno.EIO, "beyond the end", self.name)

    def _check_length(self) -> None:
        """One fstat, which is about a microsecond. A truncation just after it goes unnoticed."""
        if not self._is_device and os.fstat(self._fd).st_size < LABEL_SIZE + self._size:
            raise OSError(errno.EIO, f"{self.name} was truncated", self.name)

    def _grow_file(self, size: int) -> None:
        self._check_length()
        before = os.fstat(self._fd).st_size
        start, end = LABEL_SIZE + self._size, LABEL_SIZE + size
        try:
            if end > before:
                self._allocate(before, end)
            fill(self._fd, start, end)
            os.fsync(self._fd)
        except BaseException as error:
            with suppress(OSError):
                os.ftruncate(self._fd, before)
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise UserError(
                    f"{self.name} cannot grow to {size >> 20} MiB: {error.strerror}; make room on "
                    "its file system, or choose a smaller size"
                ) from error
            raise

    def _allocate(self, start: int, end: int) -> None:
        try:
            os.posix_fallocate(self._fd, start, end - start)
        except OSError as error:  # filling it takes the room too, if less of a piece
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise

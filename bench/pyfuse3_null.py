"""A file system that does nothing, made as pyfuse3's manual would have it.

    python -m bench.pyfuse3_null --size BYTES MOUNTPOINT

Its one file, `swap`, reads as zeros and forgets what is written. Each request is a handler
that trio runs. pyfuse3 has no handler for fallocate, so the kernel is offered no discard.
Serves until it is unmounted.
"""

from __future__ import annotations

import argparse
import errno
import os
import stat
import sys

import pyfuse3
import trio

PAGE_SIZE = 4096
SWAP_INODE = pyfuse3.InodeT(pyfuse3.ROOT_INODE + 1)
NAME = b"swap"
FOREVER = 1e9  # seconds: nothing here ever changes


class Null(pyfuse3.Operations):
    """The handlers."""

    def __init__(self, size: int) -> None:
        """A file of `size` bytes."""
        super().__init__()
        self._size = size

    def _attributes(self, inode: pyfuse3.InodeT) -> pyfuse3.EntryAttributes:
        found = pyfuse3.EntryAttributes()
        found.st_ino = inode
        found.attr_timeout = found.entry_timeout = FOREVER
        found.st_blksize = PAGE_SIZE
        if inode == pyfuse3.ROOT_INODE:
            found.st_mode, found.st_nlink = pyfuse3.ModeT(stat.S_IFDIR | 0o700), 2
        else:
            found.st_mode, found.st_nlink = pyfuse3.ModeT(stat.S_IFREG | 0o600), 1
            found.st_size = self._size
        return found

    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """There is one name."""
        if name != NAME:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._attributes(SWAP_INODE)

    async def getattr(
        self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Of the directory or the file."""
        return self._attributes(inode)

    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """A block is a page."""
        found = pyfuse3.StatvfsData()
        found.f_bsize = found.f_frsize = PAGE_SIZE
        found.f_blocks = self._size // PAGE_SIZE
        return found

    async def open(
        self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileInfo:
        """Nothing is kept for an open file."""
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(inode))

    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        """Zeros."""
        return bytes(max(0, min(size, self._size - off)))

    async def write(self, fh: pyfuse3.FileHandleT, off: int, buf: bytes) -> int:
        """All of it, nowhere."""
        return len(buf)


def main() -> int:
    parser = argparse.ArgumentParser(description="A file system that does nothing, on pyfuse3.")
    parser.add_argument("--size", type=int, required=True, help="bytes")
    parser.add_argument("mountpoint")
    arguments = parser.parse_args()
    options = {*pyfuse3.default_options, "fsname=pyfuse3_null"}
    pyfuse3.init(Null(arguments.size), os.fspath(arguments.mountpoint), options)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())

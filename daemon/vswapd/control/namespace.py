"""The namespace: the directory that the mount shows, on pyfuse3.

Contents are rendered when a file is opened, and kept until it is closed, so a file that is
read in pieces is consistent. What is read from `ctl` is the last command's result when it was
opened, or that of the command that was written to the same descriptor. A file that was opened at a
worker before this one is known by its handle (vswapd/control/handle.py). The file `swap` is
only listed and described here: the data plane answers what is done with it.
"""

from __future__ import annotations

import errno
import itertools
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyfuse3
from pyfuse3 import FUSEError, InodeT

from vswapd.channel import SWAP_INODE
from vswapd.control.ctl import Control
from vswapd.control.files import RENDERERS
from vswapd.control.handle import Handle
from vswapd.control.history import History
from vswapd.control.report import Report

__all__ = ["Namespace"]

_log = logging.getLogger(__name__)

_FOREVER = 86400.0 * 365
_MAX_COMMAND = 4096
_MAX_OPEN = 256  # what is rendered stays in locked memory until it is closed
_MAX_KEPT = 8 << 20  # bytes of it
_HISTORY = "history.json"
_PAGE = 4096


@dataclass(frozen=True)
class _Node:
    inode: InodeT
    mode: int
    size: int = 0


@dataclass
class _Open:
    """An open file: what reading it gives, and at which offset that begins.

    Who writes a command and reads on, as a shell does, comes with an offset behind what was
    written, and wants the result from its start.
    """

    content: bytes
    start: int = 0

    def read(self, offset: int, size: int) -> bytes:
        if offset < self.start:  # it was sought back, or pread(2) is used
            self.start = 0
        offset -= self.start
        return self.content[offset : offset + size]


@contextmanager
def _faults_are_eio(what: str) -> Iterator[None]:
    """A fault of ours fails one request: pyfuse3 would end, and all who ask it wait for ever."""
    try:
        yield
    except Exception:
        _log.exception("%s has failed", what)
        raise FUSEError(errno.EIO) from None


def _nodes(size: int) -> dict[bytes, _Node]:
    names = {b"swap": _Node(InodeT(SWAP_INODE), stat.S_IFREG | 0o600, size)}
    names[b"ctl"] = _Node(InodeT(SWAP_INODE + 1), stat.S_IFREG | 0o600)
    for inode, name in enumerate((*RENDERERS, _HISTORY), SWAP_INODE + 2):
        names[name.encode()] = _Node(InodeT(inode), stat.S_IFREG | 0o444)
    return names


class Namespace(pyfuse3.Operations):
    """Lists the files and serves all but `swap`."""

    enable_writeback_cache = False

    def __init__(
        self,
        size: int,
        report: Callable[[], Report],
        control: Control,
        history: History,
        generation: int = 0,
    ) -> None:
        """`size` is the device's, in bytes; `report` takes a snapshot.

        `generation` counts the workers before this one.
        """
        super().__init__()
        self._report = report
        self._history = history
        self._control = control
        self._names = _nodes(size)
        self._by_inode = {node.inode: (name, node) for name, node in self._names.items()}
        self._root = _Node(pyfuse3.ROOT_INODE, stat.S_IFDIR | 0o755)
        self._size = size
        self._made = time.time_ns()
        self._owner = os.geteuid(), os.getegid()
        self._open: dict[int, _Open] = {}
        self._generation = generation
        self._counter = itertools.count(1)

    def _attributes(self, node: _Node) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = node.inode
        entry.st_mode = pyfuse3.ModeT(node.mode)
        entry.st_size = node.size
        entry.st_blksize = _PAGE
        entry.st_uid, entry.st_gid = self._owner
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = self._made
        entry.attr_timeout = entry.entry_timeout = _FOREVER
        return entry

    def _node(self, inode: InodeT) -> _Node:
        if inode == self._root.inode:
            return self._root
        if inode in self._by_inode:
            return self._by_inode[inode][1]
        raise FUSEError(errno.ENOENT)

    async def getattr(
        self, inode: InodeT, ctx: pyfuse3.RequestContext | None = None
    ) -> pyfuse3.EntryAttributes:
        """Attributes never change."""
        return self._attributes(self._node(inode))

    async def setattr(
        self,
        inode: InodeT,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: pyfuse3.FileHandleT | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Only `ctl` may be truncated, which `echo > ctl` does; it changes nothing."""
        node = self._node(inode)
        if node is not self._names[b"ctl"] or not fields.update_size:
            raise FUSEError(errno.EPERM)
        return self._attributes(node)

    async def lookup(
        self, parent_inode: InodeT, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """There is one directory."""
        if parent_inode == self._root.inode and name in self._names:
            return self._attributes(self._names[pyfuse3.FileNameT(name)])
        raise FUSEError(errno.ENOENT)

    async def opendir(self, inode: InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileHandleT:
        """Directories keep no state."""
        return pyfuse3.FileHandleT(0)

    async def readdir(
        self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken
    ) -> None:
        """Every name, in a fixed order."""
        listing = list(self._names.items())
        for at, (name, node) in enumerate(listing[start_id:], start_id + 1):
            if not pyfuse3.readdir_reply(
                token, pyfuse3.FileNameT(name), self._attributes(node), at
            ):
                break

    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """The block size matters: without one the loop device offers no discard."""
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = _PAGE
        data.f_blocks = self._size // _PAGE
        with _faults_are_eio("statfs"):
            now = self._report().store
            used = now.stored_pages + now.backing_pages
            # A page that moves meanwhile may be counted in both places.
            data.f_bfree = data.f_bavail = max(0, data.f_blocks - used)
        data.f_files = len(self._names)
        data.f_namemax = 255
        return data

    async def open(
        self, inode: InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.FileInfo:
        """Render the file as it is now."""
        node = self._node(inode)
        if node is self._root:
            raise FUSEError(errno.EISDIR)
        if flags & os.O_ACCMODE != os.O_RDONLY and not node.mode & stat.S_IWUSR:
            raise FUSEError(errno.EACCES)
        self._check_room()
        name = self._by_inode[inode][0].decode()
        with _faults_are_eio(name):
            content = await self._content(name)
        self._check_room(content)  # others may have been let in meanwhile
        handle = self._new_handle(inode, len(content))
        self._open[handle] = _Open(content)
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(handle), direct_io=True)

    def _check_room(self, more: bytes = b"") -> None:
        """Raise EMFILE if one open file more, with this content, is too much.

        What several of them have in common is there once.
        """
        contents = [more, *(file.content for file in self._open.values())]
        kept = {id(each): len(each) for each in contents}
        if len(self._open) >= _MAX_OPEN or sum(kept.values()) > _MAX_KEPT:
            raise FUSEError(errno.EMFILE)

    def _new_handle(self, inode: InodeT, size: int) -> int:
        while True:
            counter = next(self._counter)
            handle = Handle.make(inode, self._generation, counter, size).packed
            if handle not in self._open:
                return handle

    async def _content(self, name: str) -> bytes:
        if name == _HISTORY:
            return await self._history.render()
        if name == "ctl":
            return self._control.last.text.encode(errors="replace")
        return RENDERERS[name](self._report()).encode()

    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        """From what `open` rendered, or from a command's result."""
        return (await self._opened(fh, off)).read(off, size)

    async def write(self, fh: pyfuse3.FileHandleT, off: int, buf: bytes) -> int:
        """A command to `ctl`, answered when it is done: with its errno if it failed.

        The result, or the reason, can then be read.
        """
        file = await self._opened(fh)
        if len(buf) > _MAX_COMMAND:
            raise FUSEError(errno.E2BIG)
        with _faults_are_eio("ctl"):
            result = await self._control.run(buf.decode(errors="replace"))
            file.content, file.start = result.text.encode(errors="replace"), off
        if result.code:
            raise FUSEError(result.code)
        file.start += len(buf)  # as the descriptor's offset does when a write succeeds
        return len(buf)

    async def _opened(self, fh: pyfuse3.FileHandleT, offset: int = 0) -> _Open:
        """What is open as `fh`.

        If it was opened at another worker it is rendered anew, for who begins to read; who has
        read all of it finds its end where it was, and who stopped half way cannot go on.
        """
        if fh in self._open:
            return self._open[fh]
        handle = Handle.of(fh)
        if handle.is_of(self._generation) or InodeT(handle.inode) not in self._by_inode:
            raise FUSEError(errno.EBADF)
        if offset >= handle.size and offset:
            return _Open(b"")
        if offset:
            raise FUSEError(errno.ESTALE)
        self._check_room()
        name = self._by_inode[InodeT(handle.inode)][0].decode()
        with _faults_are_eio(name):
            content = await self._content(name)
        if fh not in self._open:  # else another who reads it was quicker
            self._check_room(content)
            self._open[fh] = _Open(content)
        return self._open[fh]

    async def flush(self, fh: pyfuse3.FileHandleT) -> None:
        """Nothing is kept back."""

    async def fsync(self, fh: pyfuse3.FileHandleT, datasync: bool) -> None:
        """What was written is stored once it is answered."""

    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        """Forget what was rendered. `swap` has handle 0, which is in no list."""
        self._open.pop(fh, None)

"""A kernel made of a socket: one message is one request or one reply, as on /dev/fuse."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from vswap.geometry import PAGE_SIZE, SEGMENT_SHIFT, SEGMENT_SIZE, Geometry
from vswap.store import (
    Lane,
    Parked,
    Policy,
    Selection,
    Shape,
    State,
    Store,
    least_memory,
)
from vswap.store.backing import MemoryBacking
from vswap.store.entry import extent_of
from vswapd.channel.outstanding import Outstanding

SECONDS = 10
HEADER = struct.Struct("<IIQQIIIHH")
LOOKUP, FORGET, GETATTR, OPEN, READ, WRITE, INIT = 1, 2, 3, 14, 15, 16, 26
INTERRUPT, BATCH_FORGET, FALLOCATE, LSEEK = 36, 42, 43, 46


@dataclass
class Kernel:
    """The kernel's side of a connection. `fd` is what stands for the daemon's /dev/fuse."""

    side: socket.socket
    device: socket.socket
    swap: int = 2
    unique: int = field(default=0x1000, init=False)

    @property
    def fd(self) -> int:
        return self.device.fileno()

    def send(self, request: bytes) -> None:
        self.side.send(request)

    def reply(self) -> bytes:
        """The next reply; fails the test if there is none in time."""
        return self.side.recv(1 << 21)

    def has_reply(self) -> bool:
        poll = select.poll()
        poll.register(self.side, select.POLLIN)
        return bool(poll.poll(0))

    def hang_up(self) -> None:
        """What unmounting looks like from the device (see `kernel`)."""
        self.side.close()

    def request(
        self, opcode: int, body: bytes, *, nodeid: int = 2, unique: int | None = None
    ) -> bytes:
        """A request with poison in all that nobody should look at."""
        if unique is None:
            self.unique += 2
            unique = self.unique
        length = HEADER.size + len(body)
        ids = (unique, nodeid, 0xD1D1D1D1, 0xD2D2D2D2, 0xD3D3D3D3)
        return HEADER.pack(length, opcode, *ids, 0, 0xD4D4) + body

    def read(self, offset: int, size: int, *, nodeid: int = 2, unique: int | None = None) -> bytes:
        body = struct.pack("<QQIIQII", 0, offset, size, 0xE1, 0xE2, 0xE3, 0xE4)
        return self.request(READ, body, nodeid=nodeid, unique=unique)

    def write(
        self, offset: int, data: bytes, *, nodeid: int = 2, unique: int | None = None
    ) -> bytes:
        body = struct.pack("<QQIIQII", 0, offset, len(data), 0xE1, 0xE2, 0xE3, 0xE4) + data
        return self.request(WRITE, body, nodeid=nodeid, unique=unique)

    def fallocate(self, offset: int, length: int, mode: int) -> bytes:
        return self.request(FALLOCATE, struct.pack("<QQQII", 0, offset, length, mode, 0xE1E1))

    def lseek(self, offset: int, whence: int) -> bytes:
        return self.request(LSEEK, struct.pack("<QQII", 0, offset, whence, 0xE1E1))

    def open(self, *, nodeid: int = 2) -> bytes:
        return self.request(OPEN, struct.pack("<II", os.O_RDWR, 0), nodeid=nodeid)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    """The device does not block. Where a socket ends with 0 bytes, /dev/fuse says ENODEV."""
    side, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (side, device):  # room for a few large messages, within anybody's limits
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 200 << 10)
    side.settimeout(SECONDS)
    device.setblocking(False)
    real = os.readv

    def readv(fd: int, buffers: list[memoryview]) -> int:
        length = real(fd, buffers)
        if not length:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        return length

    monkeypatch.setattr(os, "readv", readv)
    with side, device:
        yield Kernel(side, device)


@dataclass
class Small:
    """A device of 4 MiB on a real store, that never compresses pages together."""

    state: State
    store: Store
    lane: Lane


@pytest.fixture
def small(request: pytest.FixtureRequest) -> Iterator[Small]:
    """Parametrize it indirectly with "tight" for the least memory that there may be."""
    shape = Shape(Geometry(4 << 20), segments=24, buffers=2, buffer_size=257 * PAGE_SIZE)
    state = State.create(shape)
    limit = least_memory(shape) if getattr(request, "param", "") == "tight" else None
    store = Store(state, Policy("stored", unit_pages=1, memory_limit=limit, reserve=0))
    yield Small(state, store, store.lane())
    state.close()


@pytest.fixture
def outstanding(small: Small) -> Outstanding:
    """What has left the receive buffers, in the state's memory, as a worker has it."""
    return Outstanding(small.state.outstanding.view)


class ScriptedBacking(MemoryBacking):
    """A disk that hangs or fails in reading when the test says so. `reads` are what came."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.reads: list[tuple[int, int]] = []
        self.error: Exception | None = None
        self._entered = threading.Semaphore(0)
        self._go = threading.Event()
        self._go.set()

    def hang(self) -> None:
        """Reads do not end until `go`."""
        self._entered = threading.Semaphore(0)
        self._go.clear()

    def go(self) -> None:
        self._go.set()

    def wait_entered(self, times: int = 1) -> None:
        """Until so many more reads have begun."""
        for _ in range(times):
            assert self._entered.acquire(timeout=SECONDS)

    def has_entered(self) -> bool:
        """Whether one more has begun, which counts as waited for then."""
        return self._entered.acquire(blocking=False)

    def read(self, offset: int, into: memoryview) -> None:
        self.reads.append((offset, len(into)))
        self._entered.release()
        if not self._go.wait(SECONDS):
            raise OSError(errno.ETIMEDOUT, "nobody said go")
        if self.error is not None:
            raise self.error
        super().read(offset, into)


@dataclass
class Backed:
    """The small device with a disk."""

    small: Small
    disk: ScriptedBacking

    @property
    def store(self) -> Store:
        return self.small.store

    def fill(self, slot: int, pages: bytes) -> None:
        """Write pages that then lie on disk."""
        self.small.lane.write(slot * PAGE_SIZE, memoryview(pages))
        end = slot + len(pages) // PAGE_SIZE
        everything = Selection(huge=None, cold=None, slots=(slot, end))
        assert self.store.backing.write_back(everything) == end - slot

    def scatter(self, pages: bytes) -> None:
        """Write pages that then lie on disk, none near another: no read brings two of them."""
        for at in range(0, len(pages), PAGE_SIZE):
            self.fill(at // PAGE_SIZE, pages[at : at + PAGE_SIZE])

    def park(self, slot: int, count: int = 1) -> Parked:
        """A read of pages of which some lie on disk."""
        found = self.small.lane.look(slot * PAGE_SIZE, count * PAGE_SIZE)
        assert isinstance(found, Parked)
        return found

    def damage(self, slot: int) -> None:
        """Change one bit of the copy on disk; a second time, change it back."""
        extent = extent_of(self.store._parts.table.get(slot))
        self.disk.data[(extent.segment << SEGMENT_SHIFT) + extent.offset + 17] ^= 1


@pytest.fixture
def backed(small: Small) -> Iterator[Backed]:
    disk = ScriptedBacking(24 * SEGMENT_SIZE)
    small.store.backing.attach(disk)
    yield Backed(small, disk)
    disk.go()

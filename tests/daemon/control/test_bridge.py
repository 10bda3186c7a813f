"""The bridge: requests to pyfuse3, its replies to the kernel, and neither waits for the other.

A socket stands for the kernel's connection. Where pyfuse3 is started, it is the real one.
"""

from __future__ import annotations

import errno
import gc
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import pyfuse3
import pytest
import trio
from descriptor_support import open_descriptors

from vswap.errors import ProtocolError
from vswap.proto import decode, negotiate
from vswap.proto.abi import InitFlag
from vswap.proto.requests import Init
from vswapd.channel import Handshake
from vswapd.control import Bridge, Control, History, Namespace, Report, Rings

SECONDS = 10
SIZE = 64 << 20
IN = struct.Struct("<IIQQIIIHH")
OUT = struct.Struct("<IiQ")
LOOKUP, GETATTR, OPEN, READ, WRITE, STATFS, RELEASE, INIT = 1, 3, 14, 15, 16, 17, 18, 26
UNLINK, OPENDIR, READDIRPLUS = 10, 27, 44
ROOT, SWAP, CTL, STATS = 1, 2, 3, 4

needs_large_buffers = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root may have socket buffers for a 1 MiB message"
)


def request(opcode: int, body: bytes = b"", *, nodeid: int = ROOT, unique: int = 10) -> bytes:
    header = IN.pack(IN.size + len(body), opcode, unique, nodeid, 0, 0, 1, 0, 0)
    return header + body


def kernel_init() -> bytes:
    flags = (
        InitFlag.ASYNC_DIO
        | InitFlag.BIG_WRITES
        | InitFlag.MAX_PAGES
        | InitFlag.DO_READDIRPLUS
        | InitFlag.INIT_EXT
    )
    return request(INIT, struct.pack("<IIIII44x", 7, 40, 1 << 17, flags, 0), nodeid=0, unique=2)


def agreed() -> Handshake:
    raw = kernel_init()
    init = decode(raw, len(raw))
    assert isinstance(init, Init)
    return Handshake(raw, negotiate(init))


@dataclass
class Bridged:
    """A bridge to a kernel that is a socket. `answered` are the `unique`s of what was replied."""

    bridge: Bridge
    kernel: socket.socket
    answered: list[int]

    @property
    def far(self) -> socket.socket:
        """Where pyfuse3 would be."""
        return self.bridge._far


def unkept(unique: int) -> None:
    """A request that nobody kept has been answered."""


@pytest.fixture
def bridged() -> Iterator[Bridged]:
    kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    kernel.settimeout(SECONDS)
    with kernel, device:
        answered: list[int] = []
        bridge = Bridge(device.fileno(), answered.append)
        bridge._far.settimeout(SECONDS)
        yield Bridged(bridge, kernel, answered)
        bridge.close()


def run(act: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine function in trio, for a limited time."""

    async def limited() -> None:
        with trio.fail_after(SECONDS):
            await act()

    trio.run(limited)


# --- Forwarding ------------------------------------------------------------------------


def test_a_request_arrives_as_it_is(bridged: Bridged) -> None:
    raw = request(LOOKUP, b"stats\0")
    assert bridged.bridge.forward(memoryview(raw))
    assert bridged.far.recv(4096) == raw


def test_requests_stay_apart(bridged: Bridged) -> None:
    bridged.bridge.forward(memoryview(b"one"))
    bridged.bridge.forward(memoryview(b"another"))
    assert [bridged.far.recv(4096), bridged.far.recv(4096)] == [b"one", b"another"]


@needs_large_buffers
def test_the_largest_request_goes_through(bridged: Bridged) -> None:
    raw = bytes(80 + (1 << 20))
    assert bridged.bridge.forward(memoryview(raw))
    assert bridged.far.recv(len(raw) + 1) == raw


def fill(bridged: Bridged) -> int:
    """Forward until nothing goes in any more; answers how many went."""
    raw = memoryview(bytes(100_000))
    return next(count for count in range(1000) if not bridged.bridge.forward(raw))


def test_a_full_socket_refuses_and_does_not_wait(
    bridged: Bridged, caplog: pytest.LogCaptureFixture
) -> None:
    assert fill(bridged) > 0
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_room_again_takes_requests_again(bridged: Bridged) -> None:
    for _ in range(fill(bridged)):
        bridged.far.recv(100_000)
    assert bridged.bridge.forward(memoryview(b"again"))
    assert bridged.far.recv(4096) == b"again"


def test_a_request_too_large_for_the_socket_is_refused(bridged: Bridged) -> None:
    assert not bridged.bridge.forward(memoryview(bytes(64 << 20)))


def test_nobody_at_the_other_end_refuses(bridged: Bridged) -> None:
    bridged.far.close()
    assert not bridged.bridge.forward(memoryview(b"request"))
    bridged.bridge._far = socket.socket()  # so that closing finds one


def test_a_closed_bridge_refuses() -> None:
    bridge = Bridge(-1, unkept)
    bridge.close()
    assert not bridge.forward(memoryview(b"request"))


def test_a_refusal_does_not_log_what_was_in_the_request(
    bridged: Bridged, caplog: pytest.LogCaptureFixture
) -> None:
    fill(bridged)
    bridged.bridge.forward(memoryview(b"TOPSECRET" * 20_000))
    assert "SECRET" not in caplog.text


# --- Relaying --------------------------------------------------------------------------


def relay(bridged: Bridged, *replies: bytes) -> list[bytes]:
    """What reaches the kernel while these replies are relayed."""
    reached: list[bytes] = []

    async def act() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bridged.bridge.relay)
            for reply in replies:
                bridged.far.send(reply)
            while not reached or reached[-1] != replies[-1]:
                await trio.lowlevel.wait_readable(bridged.kernel)
                reached.append(bridged.kernel.recv(1 << 21))
            nursery.cancel_scope.cancel()

    run(act)
    return reached


def test_replies_reach_the_kernel_in_order(bridged: Bridged) -> None:
    assert relay(bridged, b"one", b"two", b"three") == [b"one", b"two", b"three"]


def fail_once(monkeypatch: pytest.MonkeyPatch, bad: bytes, code: int) -> None:
    """Let the kernel refuse the reply `bad`."""
    real = os.write

    def write(fd: int, data: memoryview) -> int:
        if bytes(data) == bad:
            raise OSError(code, os.strerror(code))
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ENODEV, errno.ECONNABORTED])
def test_a_reply_that_nobody_waits_for_is_dropped(
    code: int, bridged: Bridged, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_once(monkeypatch, b"late", code)
    assert relay(bridged, b"one", b"late", b"three") == [b"one", b"three"]


def test_a_reply_that_the_kernel_refuses_does_not_end_the_device(
    bridged: Bridged, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One lost reply hangs who reads a statistic; a dead relay takes the swap with it."""
    fail_once(monkeypatch, b"wrong", errno.EINVAL)
    assert relay(bridged, b"one", b"wrong", b"three") == [b"one", b"three"]
    assert caplog.records


def reply_to(unique: int, body: bytes = b"") -> bytes:
    return OUT.pack(OUT.size + len(body), 0, unique) + body


def test_what_was_replied_to_need_not_be_kept(bridged: Bridged) -> None:
    relay(bridged, reply_to(10), reply_to(1 << 63 | 12, b"body"), b"no reply", reply_to(14))
    assert bridged.answered == [10, 1 << 63 | 12, 14]


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EINVAL, errno.ENODEV])
def test_what_the_kernel_wants_no_reply_to_need_not_be_kept_either(
    code: int, bridged: Bridged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A place that is not given back is lost to all later requests."""
    fail_once(monkeypatch, reply_to(10), code)
    relay(bridged, reply_to(10), reply_to(12))
    assert bridged.answered == [10, 12]


def test_a_reply_is_written_before_its_request_is_let_go(
    bridged: Bridged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is killed in between leaves it to be answered once more, and not unanswered."""
    kept_while_written: list[bool] = []
    real = os.write

    def write(fd: int, data: memoryview) -> int:
        kept_while_written.append(10 not in bridged.answered)
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    relay(bridged, reply_to(10))
    assert (kept_while_written[0], bridged.answered) == (True, [10])


# --- The handshake with pyfuse3 --------------------------------------------------------


def test_a_refused_init_is_a_protocol_error(bridged: Bridged) -> None:
    bridged.far.send(OUT.pack(OUT.size, -errno.EPROTO, 2))

    async def act() -> None:
        with pytest.raises(ProtocolError, match="refuses INIT"):
            await bridged.bridge.greet()

    run(act)


def test_greeting_gives_pyfuse3_the_kernel_s_init_and_keeps_its_answer(bridged: Bridged) -> None:
    bridged.far.send(OUT.pack(80, 0, 2) + struct.pack("<II", 7, 40).ljust(64, b"\0"))
    bridged.bridge.offer(agreed())
    run(bridged.bridge.greet)
    opcode, unique = struct.unpack_from("<4xIQ", bridged.far.recv(4096))
    assert (opcode, unique) == (INIT, 2)
    bridged.kernel.setblocking(False)
    with pytest.raises(BlockingIOError):
        bridged.kernel.recv(4096)


def test_the_kernel_s_init_comes_before_whatever_is_forwarded(bridged: Bridged) -> None:
    """A worker that takes over forwards what was left before pyfuse3 has begun."""
    bridged.bridge.offer(agreed())
    bridged.bridge.forward(memoryview(request(LOOKUP, b"stats\0")))
    opcodes = [struct.unpack_from("<4xI", bridged.far.recv(4096))[0] for _ in range(2)]
    assert opcodes == [INIT, LOOKUP]


def test_descriptors_are_not_inherited(bridged: Bridged) -> None:
    assert not os.get_inheritable(bridged.far.fileno())
    assert not os.get_inheritable(bridged.bridge._near.fileno())


def test_closing_closes_both_ends() -> None:
    gc.collect()  # what other tests have left
    before = open_descriptors()
    Bridge(-1, unkept).close()
    assert open_descriptors() == before


# --- The real pyfuse3 ------------------------------------------------------------------

Ask = Callable[[bytes], Awaitable[bytes]]


def with_pyfuse3(bridged: Bridged, report: Report, act: Callable[[Ask], Awaitable[None]]) -> None:
    """Run `act` with pyfuse3 and the namespace behind the bridge, as the worker has them."""
    rings = Rings.create()

    async def ask(raw: bytes) -> bytes:
        assert bridged.bridge.forward(memoryview(raw))
        await trio.lowlevel.wait_readable(bridged.kernel)
        return bridged.kernel.recv(1 << 21)

    async def serve() -> None:
        bridged.bridge.offer(agreed())
        history = History(lambda: report, rings)
        bridged.bridge.start(Namespace(SIZE, lambda: report, Control({}), history))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pyfuse3.main)
            await bridged.bridge.greet()
            nursery.start_soon(bridged.bridge.relay)
            await act(ask)
            nursery.cancel_scope.cancel()

    run(serve)
    rings.close()


def body(reply: bytes) -> bytes:
    size, code, unique = OUT.unpack_from(reply)
    assert (size, code, unique) == (len(reply), 0, 10)
    return reply[OUT.size :]


def error(reply: bytes) -> int:
    return -int(OUT.unpack_from(reply)[1])


@pytest.mark.parametrize(
    ("name", "nodeid", "mode", "size"),
    [
        (b"swap", SWAP, 0o100600, SIZE),
        (b"ctl", CTL, 0o100600, 0),
        (b"stats", STATS, 0o100444, 0),
    ],
)
def test_lookup_names_the_inode_that_the_data_plane_knows(
    name: bytes, nodeid: int, mode: int, size: int, bridged: Bridged, report: Report
) -> None:
    async def act(ask: Ask) -> None:
        entry = body(await ask(request(LOOKUP, name + b"\0")))
        assert struct.unpack_from("<Q", entry)[0] == nodeid
        attributes = entry[40:]
        assert struct.unpack_from("<QQ", attributes) == (nodeid, size)
        assert struct.unpack_from("<I", attributes, 60)[0] == mode

    with_pyfuse3(bridged, report, act)


def test_lookup_of_an_unknown_name_is_enoent(bridged: Bridged, report: Report) -> None:
    async def act(ask: Ask) -> None:
        assert error(await ask(request(LOOKUP, b"nothing\0"))) == errno.ENOENT

    with_pyfuse3(bridged, report, act)


def test_statfs_has_the_block_size_that_the_loop_device_asks_for(
    bridged: Bridged, report: Report
) -> None:
    async def act(ask: Ask) -> None:
        answer = body(await ask(request(STATFS)))
        blocks, *_ = struct.unpack_from("<QQQQQ", answer)
        bsize, namelen, frsize = struct.unpack_from("<III", answer, 40)
        assert (blocks, bsize, namelen, frsize) == (SIZE // 4096, 4096, 255, 4096)

    with_pyfuse3(bridged, report, act)


def test_a_file_is_opened_read_and_released(bridged: Bridged, report: Report) -> None:
    async def act(ask: Ask) -> None:
        opened = await ask(request(OPEN, struct.pack("<II", os.O_RDONLY, 0), nodeid=STATS))
        handle, flags = struct.unpack_from("<QI", body(opened))
        assert flags & 1  # FOPEN_DIRECT_IO
        read = struct.pack("<QQIIQII", handle, 0, 9, 0, 0, 0, 0)
        assert body(await ask(request(READ, read, nodeid=STATS))) == b"name swap"
        release = struct.pack("<QIIQ", handle, 0, 0, 0)
        assert body(await ask(request(RELEASE, release, nodeid=STATS))) == b""

    with_pyfuse3(bridged, report, act)


def test_closing_swap_is_answered(bridged: Bridged, report: Report) -> None:
    """The data plane opens it and gives it handle 0; only closing comes this way."""

    async def act(ask: Ask) -> None:
        release = struct.pack("<QIIQ", 0, 0, 0, 0)
        assert body(await ask(request(RELEASE, release, nodeid=SWAP))) == b""

    with_pyfuse3(bridged, report, act)


def test_a_listing_that_is_asked_for_in_pieces_is_whole(bridged: Bridged, report: Report) -> None:
    async def act(ask: Ask) -> None:
        names, offset = [], 0
        while True:
            read = struct.pack("<QQIIQII", 0, offset, 400, 0, 0, 0, 0)
            entries = body(await ask(request(READDIRPLUS, read)))
            if not entries:
                break
            while entries:
                # entry_out (128 bytes), then dirent: ino, off, namelen, type, name
                _, offset, length, _ = struct.unpack_from("<QQII", entries, 128)
                names.append(entries[152 : 152 + length])
                entries = entries[(152 + length + 7) & ~7 :]
        assert sorted(names) == sorted(
            b"swap ctl stats stats.json mm_stat io_stat bd_stat metrics history.json".split()
        )

    with_pyfuse3(bridged, report, act)


@pytest.mark.parametrize("opcode", [UNLINK, 4711, 39, 40, 52])
def test_what_nobody_serves_is_refused(opcode: int, bridged: Bridged, report: Report) -> None:
    """UNLINK, no opcode at all, IOCTL, POLL, and STATX."""

    async def act(ask: Ask) -> None:
        raw = request(opcode, b"stats\0".ljust(64, b"\0"), nodeid=ROOT)
        assert error(await ask(raw)) in (errno.ENOSYS, errno.EPERM, errno.EROFS)

    with_pyfuse3(bridged, report, act)


def test_pyfuse3_can_be_started_again(report: Report) -> None:
    """A process that closed one bridge may open another, and keeps no descriptor."""

    async def act(ask: Ask) -> None:
        assert body(await ask(request(LOOKUP, b"swap\0")))

    gc.collect()  # what other tests have left
    for _ in range(3):
        kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with kernel, device:
            before = open_descriptors()
            bridge = Bridge(device.fileno(), unkept)
            with_pyfuse3(Bridged(bridge, kernel, []), report, act)
            bridge.close()
            assert open_descriptors() == before

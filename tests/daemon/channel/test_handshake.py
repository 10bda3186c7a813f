"""The handshake: the kernel's first request is answered, or the start fails with a reason."""

from __future__ import annotations

import errno
import importlib
import struct
from typing import TYPE_CHECKING

import pytest

from vswap.errors import UserError
from vswap.proto.abi import InitFlag
from vswapd.channel import handshake

if TYPE_CHECKING:
    from daemon.channel.conftest import Kernel

INIT, GETATTR = 26, 3
OUT = struct.Struct("<IiQ")
OFFER = (
    InitFlag.ASYNC_DIO
    | InitFlag.BIG_WRITES
    | InitFlag.MAX_PAGES
    | InitFlag.DO_READDIRPLUS
    | InitFlag.INIT_EXT
)


@pytest.fixture
def buffer() -> memoryview:
    return memoryview(bytearray(8192))


def init(kernel: Kernel, flags: int = OFFER, minor: int = 40) -> bytes:
    flags2 = flags >> 32
    body = struct.pack("<IIIII44x", 7, minor, 1 << 17, flags & 0xFFFFFFFF, flags2)
    return kernel.request(INIT, body, nodeid=0, unique=2)


def test_init_is_answered_with_what_was_agreed(kernel: Kernel, buffer: memoryview) -> None:
    kernel.send(init(kernel))
    agreed = handshake(kernel.fd, buffer)
    reply = kernel.reply()
    assert OUT.unpack_from(reply) == (80, 0, 2)
    major, minor, _, flags = struct.unpack_from("<IIII", reply, OUT.size)
    max_background, congestion, max_write, _, max_pages = struct.unpack_from(
        "<HHIIH", reply, OUT.size + 16
    )
    assert (major, minor, max_write, max_pages) == (7, 40, 1 << 20, 256)
    assert (max_background, congestion) == (
        agreed.reply.max_background,
        agreed.reply.congestion_threshold,
    )
    assert flags == OFFER


def test_the_request_is_kept_as_it_came(kernel: Kernel, buffer: memoryview) -> None:
    raw = init(kernel)
    kernel.send(raw)
    agreed = handshake(kernel.fd, buffer)
    buffer[: len(raw)] = bytes(len(raw))
    assert agreed.raw == raw


def test_no_request_is_left_in_the_buffer(kernel: Kernel, buffer: memoryview) -> None:
    """Whoever finds a length there takes what follows for a request to be answered."""
    kernel.send(init(kernel))
    handshake(kernel.fd, buffer)
    assert bytes(buffer[:4]) == bytes(4)


@pytest.mark.parametrize(
    "flag",
    [
        InitFlag.ASYNC_DIO,
        InitFlag.BIG_WRITES,
        InitFlag.MAX_PAGES,
        InitFlag.DO_READDIRPLUS,
    ],
)
def test_a_kernel_that_lacks_something_is_a_user_error(
    flag: InitFlag, kernel: Kernel, buffer: memoryview
) -> None:
    kernel.send(init(kernel, OFFER & ~flag))
    with pytest.raises(UserError, match=str(flag.name)):
        handshake(kernel.fd, buffer)
    assert kernel.reply() == OUT.pack(OUT.size, -errno.EPROTO, 2)


def test_an_old_kernel_is_a_user_error(kernel: Kernel, buffer: memoryview) -> None:
    kernel.send(init(kernel, minor=30))
    with pytest.raises(UserError, match=r"7\.30"):
        handshake(kernel.fd, buffer)


def test_another_request_first_is_a_user_error(kernel: Kernel, buffer: memoryview) -> None:
    kernel.send(kernel.request(GETATTR, bytes(16), unique=2))
    with pytest.raises(UserError, match="not INIT"):
        handshake(kernel.fd, buffer)
    assert kernel.reply() == OUT.pack(OUT.size, -errno.EPROTO, 2)


def test_silence_is_a_user_error(
    kernel: Kernel, buffer: memoryview, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("vswapd.channel.handshake")  # not the function of that name
    monkeypatch.setattr(module, "_INIT_SECONDS", 0)
    with pytest.raises(UserError, match="no FUSE handshake"):
        handshake(kernel.fd, buffer)


@pytest.mark.parametrize("resends", [True, False])
def test_it_is_known_whether_the_kernel_sends_again(
    resends: bool, kernel: Kernel, buffer: memoryview
) -> None:
    kernel.send(init(kernel, OFFER | InitFlag.HAS_RESEND if resends else OFFER))
    assert handshake(kernel.fd, buffer).resends is resends


def test_a_connection_that_ends_before_the_handshake_is_a_user_error(
    kernel: Kernel, buffer: memoryview
) -> None:
    kernel.hang_up()
    with pytest.raises(UserError):
        handshake(kernel.fd, buffer)


def test_a_request_too_broken_to_answer_is_a_user_error(kernel: Kernel, buffer: memoryview) -> None:
    kernel.send(b"\xff" * 10)
    with pytest.raises(UserError):
        handshake(kernel.fd, buffer)

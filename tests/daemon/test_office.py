"""What a worker asks of its supervisor, over a real link."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vswap.errors import UserError
from vswap.proto import decode, decode_init_reply, negotiate
from vswap.proto.abi import InitFlag
from vswap.proto.requests import Init
from vswap.store.backing import BLOCK, aligned
from vswapd.channel import Handshake
from vswapd.messages import Link
from vswapd.office import Office

if TYPE_CHECKING:
    from daemon.conftest import Keeping, MakeBacking


@pytest.fixture
def link(keeping: Keeping) -> Iterator[Link]:
    made = Link(keeping.end)
    yield made
    made.close()


@pytest.fixture
def office(link: Link) -> Office:
    return Office(link)


def agreed() -> Handshake:
    flags = (
        InitFlag.ASYNC_DIO
        | InitFlag.BIG_WRITES
        | InitFlag.MAX_PAGES
        | InitFlag.DO_READDIRPLUS
        | InitFlag.INIT_EXT
        | InitFlag.HAS_RESEND
    )
    body = struct.pack("<IIIII44x", 7, 40, 1 << 17, flags & 0xFFFFFFFF, flags >> 32)
    raw = struct.pack("<IIQQIIIHH", 40 + len(body), 26, 2, 0, 0, 0, 0, 0, 0) + body
    init = decode(raw, len(raw))
    assert isinstance(init, Init)
    return Handshake(raw, negotiate(init))


def open_files(path: str) -> int:
    """How often this process has a file open."""
    return [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()].count(path)


def test_the_handshake_can_be_had_back_from_what_is_kept(
    office: Office, link: Link, keeping: Keeping
) -> None:
    made = agreed()
    office.keep_handshake(made)
    keeping.hear_all(link)
    (message,) = keeping.heard
    raw, reply = bytes.fromhex(message["init"]), bytes.fromhex(message["reply"])
    assert Handshake(raw, decode_init_reply(reply)) == made
    assert made.resends


def test_serving_is_told(office: Office, link: Link, keeping: Keeping) -> None:
    office.serving([1, 2])
    keeping.hear_all(link)
    assert keeping.heard == [{"is": "serving", "threads": [1, 2]}]


def test_a_backing_is_held_by_both(
    office: Office, keeping: Keeping, make_backing: MakeBacking
) -> None:
    path = make_backing("file")
    backing = office.open_backing(path)
    assert (backing.name, keeping.held) == (path, path)
    assert open_files(path) == 2  # and nothing is left of opening it
    memory = aligned(BLOCK)
    memory[:] = b"x" * BLOCK
    backing.write(0, memory)
    backing.close()


def test_what_was_written_can_be_read_by_a_successor_from_what_is_held(
    office: Office, keeping: Keeping, make_backing: MakeBacking
) -> None:
    """Without opening the file again, which might be impossible: it is locked, or removed."""
    path = make_backing("file")
    backing = office.open_backing(path)
    memory = aligned(BLOCK)
    memory[:] = b"x" * BLOCK
    backing.write(0, memory)
    Path(path).unlink()
    successor = office.kept_backing(os.dup(keeping.files[path]), path)
    assert successor is not None
    found = aligned(BLOCK)
    successor.read(0, found)
    assert bytes(found) == b"x" * BLOCK
    successor.close()
    os.close(backing.fileno())


def test_closing_a_backing_lets_the_supervisor_let_it_go(
    office: Office, link: Link, keeping: Keeping, make_backing: MakeBacking
) -> None:
    path = make_backing("file")
    office.open_backing(path).close()
    keeping.hear_all(link)
    assert (keeping.told, keeping.held) == (["hold", "drop"], None)
    assert open_files(path) == 0


def test_the_lock_of_a_backing_outlives_the_worker(
    office: Office, keeping: Keeping, make_backing: MakeBacking
) -> None:
    """Or another device could be given the file in between."""
    path = make_backing("file")
    backing = office.open_backing(path)
    os.close(backing.fileno())  # as the end of the worker does
    with pytest.raises(UserError, match="is used by another device"):
        office.open_backing(path)
    assert keeping.held == path


def test_another_device_may_have_a_backing_that_was_closed_though_somebody_has_it_open_yet(
    office: Office, keeping: Keeping, make_backing: MakeBacking
) -> None:
    """A worker that dies just after it let go is some time about closing its files."""
    path = make_backing("file")
    backing = office.open_backing(path)
    dying = os.dup(backing.fileno())
    backing.close()
    office.open_backing(path).close()
    os.close(dying)


def test_what_was_let_go_of_and_is_another_device_s_is_not_had_again(
    office: Office, link: Link, keeping: Keeping, make_backing: MakeBacking
) -> None:
    """A successor that was given the file before it was let go of."""
    path = make_backing("file")
    backing = office.open_backing(path)
    given = os.dup(backing.fileno())
    backing.close()
    other = os.open(path, os.O_RDWR)
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert office.kept_backing(given, path) is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(given)
    keeping.hear_all(link)
    assert keeping.told == ["hold", "drop", "drop"]
    os.close(other)


def test_what_cannot_be_a_backing_is_not_held(
    office: Office, link: Link, keeping: Keeping, tmp_path: Path
) -> None:
    with pytest.raises(UserError):
        office.open_backing(str(tmp_path / "missing"))
    keeping.hear_all(link)
    assert keeping.told == []


def test_without_a_supervisor_no_backing_is_attached(
    office: Office, keeping: Keeping, make_backing: MakeBacking
) -> None:
    """What was written to it would die with the worker."""
    path = make_backing("file")
    keeping.go()
    with pytest.raises(UserError, match="the supervisor is gone"):
        office.open_backing(path)
    assert open_files(path) == 0


def test_a_supervisor_that_is_gone_is_no_error_to_who_tells_it_something(
    office: Office, keeping: Keeping
) -> None:
    keeping.go()
    office.serving([1, 2])
    office.drop_backing()
    office.keep_handshake(agreed())

"""Each peer, started: what is written can be read again, and nothing is left behind.

What a machine lacks is skipped, and the reason is the peer's.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import random
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from swap_support import missing, run, swaps

from bench.build import OUT, build
from bench.peers import Peer, PeerError, swapping
from bench.peers.catalogue import PEERS
from bench.peers.disk import swap_file
from bench.peers.processes import alive, kill
from bench.peers.served import mount_point, served

pytestmark = [pytest.mark.swap, pytest.mark.skipif(missing() is not None, reason=str(missing()))]

SIZE = 64 << 20
BLOCK = 1 << 20
PAGE = 4096
BLKDISCARD = 0x1277
PAGE_CLUSTER = Path("/proc/sys/vm/page-cluster")
ZSWAP = Path("/sys/module/zswap/parameters")


@pytest.fixture(params=list(PEERS))
def peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    with ExitStack() as stack:
        try:
            started = stack.enter_context(PEERS[request.param](SIZE))
        except PeerError as error:
            pytest.skip(str(error))
        yield started


def read(peer: Peer, offset: int, length: int) -> bytes:
    """Past the page cache, so that the peer is asked."""
    handle = os.open(peer.device, os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        with mmap.mmap(-1, length) as buffer:
            assert os.preadv(handle, [buffer], offset) == length
            return bytes(buffer)
    finally:
        os.close(handle)


def write(peer: Peer, offset: int, data: bytes) -> None:
    handle = os.open(peer.device, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    try:
        with mmap.mmap(-1, len(data)) as buffer:
            buffer[:] = data
            assert os.pwritev(handle, [buffer], offset) == len(data)
    finally:
        os.close(handle)


def discard(peer: Peer, offset: int, length: int) -> None:
    handle = os.open(peer.device, os.O_WRONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(handle, BLKDISCARD, struct.pack("=QQ", offset, length))
    finally:
        os.close(handle)


def test_it_goes_by_its_name_in_the_catalogue(peer: Peer, request: pytest.FixtureRequest) -> None:
    assert f"[{peer.name}]" in request.node.name
    assert alive(peer.pids) == list(peer.pids)


def test_what_is_written_is_kept_until_it_is_discarded(peer: Peer) -> None:
    if not peer.block:
        pytest.skip("a file, which is only swapped to")
    data = random.Random(1).randbytes(BLOCK)
    before = peer.stored()
    write(peer, BLOCK + PAGE, data)
    if not peer.keeps:
        assert (read(peer, BLOCK + PAGE, BLOCK), before) == (bytes(BLOCK), None)
        return
    assert read(peer, BLOCK + PAGE, BLOCK) == data
    after = peer.stored()
    assert before is not None
    assert after is not None
    assert after.pages - before.pages == BLOCK // PAGE
    assert after.pool >= BLOCK
    discard(peer, BLOCK + PAGE, BLOCK // 2)
    assert read(peer, BLOCK + PAGE, BLOCK) == bytes(BLOCK // 2) + data[BLOCK // 2 :]


def test_it_can_be_swapped_on_and_leaves_the_kernel_as_it_was(peer: Peer) -> None:
    if not peer.keeps:
        pytest.skip("it does not keep what is written")
    files = [PAGE_CLUSTER, *sorted(ZSWAP.glob("*"))]
    before = [file.read_text() for file in files]
    with swapping(peer) as swap:
        assert f"{peer.device} " in swaps()
        assert int(PAGE_CLUSTER.read_text()) == (
            3 if peer.page_cluster is None else peer.page_cluster
        )
        assert swap.off() > 0
        assert f"{peer.device} " not in swaps()
    assert [file.read_text() for file in files] == before


@pytest.mark.parametrize(("offset", "length"), [(100, 50), (100, 5000), (4096, 8192), (5, 20000)])
def test_memfs_gives_back_what_it_is_asked_to_and_no_more(offset: int, length: int) -> None:
    data = random.Random(2).randbytes(8 * PAGE)
    program = str(build("memfs", OUT))
    with mount_point() as mount, served([program, "--size", str(SIZE), str(mount)], mount):
        swap = mount / "swap"
        with swap.open("r+b") as file:
            file.write(data)
        done = run("fallocate", "--punch-hole", *("-o", str(offset), "-l", str(length)), str(swap))
        assert done.returncode == 0, done.stderr
        with swap.open("rb") as file:
            found = file.read(len(data))
    assert found == data[:offset] + bytes(length) + data[offset + length :]


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("name", list(PEERS))
def test_nothing_of_it_is_left(name: str, killed: bool) -> None:
    settings = [file.read_text() for file in sorted(ZSWAP.glob("*"))]
    try:
        with PEERS[name](SIZE) as peer:
            if killed:
                kill(peer.pids)
    except PeerError as error:
        pytest.skip(str(error))
    assert not alive(peer.pids)
    assert peer.device not in Path("/proc/self/mountinfo").read_text()
    assert not attached(peer.device)
    assert [file.read_text() for file in sorted(ZSWAP.glob("*"))] == settings


def attached(device: str) -> bool:
    """Whether the loop device still is over a file of a mount of a benchmark's."""
    backing = Path("/sys/block") / Path(device).name / "loop/backing_file"
    return backing.exists() and "vswap-" in backing.read_text()


def test_a_swap_file_reached_through_a_link_is_swapped_off(tmp_path: Path) -> None:
    OUT.mkdir(exist_ok=True)
    (tmp_path / "link").symlink_to(OUT)
    try:
        with swap_file(SIZE, tmp_path / "link") as peer, swapping(peer):
            assert f"{peer.device} " in swaps()
    except PeerError as error:
        pytest.skip(str(error))
    assert Path(peer.device).name not in swaps()
    assert not Path(peer.device).exists()

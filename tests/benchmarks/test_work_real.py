"""Each sort of work on a peer that keeps its pages as they are: everything real but the extent."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from swap_support import missing, swaps

from bench.peers import PeerError
from bench.peers.catalogue import PEERS
from bench.shown import SHOWN
from bench.work import Plan, in_memory, works

NAME = "uncompressed C"
PLAN = Plan(0.1, 32, 48, 24, 48, 16)
WORKS = {work.name: work for work in works(PLAN)}
CORPUS_PAGES = 1024

pytestmark = [pytest.mark.swap, pytest.mark.skipif(missing() is not None, reason=str(missing()))]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Pages of which none is like another, in memory."""
    path = tmp_path_factory.mktemp("corpus") / "corpus"
    path.write_bytes(b"".join(number.to_bytes(16) * 256 for number in range(CORPUS_PAGES)))
    with in_memory(path) as copy:
        yield copy


@pytest.mark.parametrize("name", list(WORKS))
def test_work_gives_its_figures_and_leaves_no_swap(name: str, corpus: Path) -> None:
    work = WORKS[name]
    if work.sort == "fio" and shutil.which("fio") is None:
        pytest.skip("fio is not installed")
    try:
        with PEERS[NAME](work.size) as peer:
            found = work.measure(peer, corpus)
            assert f"{peer.device} " not in swaps()
    except PeerError as error:
        pytest.skip(str(error))
    assert set(found) & set(SHOWN)
    assert all(value >= 0 for value in found.values())
    if work.sort == "swapoff":
        assert found["swapoff, MiB"] > PLAN.held_mib - PLAN.held_limit_mib - 1
        assert found["swapoff, bytes per page"] >= 4096
    if work.sort == "hog":
        assert found[f"{name}, swapped: GiB"] > 0

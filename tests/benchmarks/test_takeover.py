"""The takeover benchmark: its figures, what it writes, how it knows a page, and the whole once."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import xxhash
from swap_support import missing

from bench.peers import PeerError, vswap
from bench.takeover import Kill, Plan, Reads, figures, fill, measure, percentile, reading
from vswap.geometry import PAGE_SIZE

MIB = 1 << 20
MS = 1_000_000
PAGES = 512


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Pages of which none is like another."""
    path = tmp_path / "corpus"
    path.write_bytes(b"".join(number.to_bytes(16) * 256 for number in range(1, 257)))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """In the place of a device."""
    path = tmp_path / "device"
    path.write_bytes(bytes(PAGES * PAGE_SIZE))
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_DIRECT))
    except OSError:
        pytest.skip("no direct I/O here")
    return path


def reads(*spans: tuple[float, float]) -> Reads:
    """Reads from a time to another, in milliseconds."""
    began, ended = np.array(spans).T * MS
    return Reads(ended.astype(np.int64), (ended - began).astype(np.int64), 0, 0)


def kill(*times: float) -> Kill:
    return Kill(2 * MIB, *(int(time * MS) for time in times))


def test_the_pause_is_the_longest_read_from_one_kill_to_the_next() -> None:
    seen = reads((0, 1), (1, 3), (3, 43), (43, 44), (100, 170), (170, 171))
    kills = [kill(10, 30, 31, 42), kill(110, 150, 152, 160)]
    found = figures(seen, kills)
    assert (found["pause, median: ms"], found["pause, p99: ms"]) == (55, 70)
    assert found["killed -> ended, median: ms"] == 30
    assert found["ended -> told, median: ms"] == 1.5
    assert found["told -> data threads, most: ms"] == 11
    assert found["data threads -> reply, most: ms"] == 10
    assert (found["usual read, median: ms"], found["usual read, most: ms"]) == (1.5, 2)
    assert found["mapped when killed, median: MiB"] == 2


def test_a_kill_after_which_nothing_was_read_has_no_pause() -> None:
    with pytest.raises(PeerError, match="nothing was read"):
        figures(reads((0, 1), (1, 2)), [kill(10, 20, 30, 40)])


def test_a_percentile_is_one_of_the_values() -> None:
    values = list(range(100, 0, -1))
    assert [percentile(values, percent) for percent in (0, 50, 99, 100)] == [1, 50, 99, 100]
    assert percentile([7.0], 99) == 7


@pytest.mark.parametrize("rewritten", [0.0, 0.25])
def test_every_page_that_is_written_is_another_and_known(
    rewritten: float, corpus: Path, file: Path
) -> None:
    sums = fill(str(file), corpus, PAGES * PAGE_SIZE, rewritten)
    data = file.read_bytes()
    pages = [data[at : at + PAGE_SIZE] for at in range(0, len(data), PAGE_SIZE)]
    assert [xxhash.xxh3_64_intdigest(page) for page in pages] == sums.tolist()
    assert len(set(pages)) == PAGES
    moved = sum(
        page[8:] != corpus.read_bytes()[number % 256 * PAGE_SIZE + 8 :][: PAGE_SIZE - 8]
        for number, page in enumerate(pages)
    )
    assert moved == pytest.approx(PAGES * rewritten, abs=4)


def test_the_reader_notices_wrong_pages_and_such_as_cannot_be_read(
    corpus: Path, file: Path
) -> None:
    sums = fill(str(file), corpus, PAGES * PAGE_SIZE)
    for wrong, failed, expected in ((0, 0, sums), (1, 0, sums + 1), (0, 1, sums)):
        if failed:
            os.truncate(file, 0)
        with reading(str(file), expected) as end:
            seen = end()
        count = len(seen.took)
        assert count == len(seen.ended) > 0
        assert (seen.wrong, seen.failed) == (wrong * count, failed * count)


@pytest.mark.swap
@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_a_small_device_is_killed_and_read(corpus: Path) -> None:
    with vswap(16 * MIB) as peer:
        found, kills = measure(peer, corpus, Plan(16 * MIB, 0.1, kills=3, seconds=0.0, before=0.2))
    assert found["worker restarts"] == found["kills"] == len(kills) == 3
    assert found["pages that are wrong"] == found["reads that failed"] == 0
    assert found["reads"] > 0
    assert found["pause, most: ms"] >= found["usual read, median: ms"] > 0
    for seen in kills:
        assert seen.killed < seen.ended < seen.told < seen.threads

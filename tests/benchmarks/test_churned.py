"""The store under random overwrites, and what the codecs' measurement makes of its data."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench.churned import STRIPE, Churned, Outcome, Pages
from bench.codec_alone import TAKEN, ZstdWithDictionary, cut, measure, sample, train
from vswap.codec import Zstd
from vswap.store import Policy

SIZE = 16 << 20
WORDS = [b"pointer", b"header", b"\0\0\0\0", b"list", b"name"]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 MiB that compress, no page like another."""
    rng = random.Random(1)
    text = b"".join(rng.choice(WORDS) + rng.randbytes(3) for _ in range(400_000))
    path: Path = tmp_path_factory.mktemp("pages") / "pages"
    path.write_bytes(text[: 2 << 20])
    return path


@pytest.fixture
def churned(file: Path) -> Iterator[Churned]:
    made = Churned(SIZE, 0.7, Policy(), Pages(file), seed=1)
    yield made
    made.close()


def test_every_page_is_as_it_was_written(churned: Churned) -> None:
    with churned.background():
        done = churned.write_all(times=2.0)
    assert done.pages_written >= 2 * SIZE // 4096
    assert (done.wrong, done.failed) == (0, 0)
    assert churned.wrong_pages() == 0
    assert churned.check() == ()
    assert churned.memory()["mem_used_total"] == churned.statistics().mem_used_total


def test_a_wrong_page_is_noticed(churned: Churned) -> None:
    churned.write_all(times=0.1)
    record = churned._record
    record[3], record[STRIPE] = record[STRIPE], record[3]
    assert churned.wrong_pages() == 2


def test_it_comes_to_rest(churned: Churned) -> None:
    churned.write_all(times=0.1)
    assert churned.rest(seconds=60.0) < 60.0


def test_outcomes_add_up() -> None:
    assert Outcome(1, 2, 3, 4, 5, 6) + Outcome(writes=1, wrong=1) == Outcome(2, 2, 3, 4, 5, 7)


def test_samples_of_different_parts_have_nothing_in_common(tmp_path: Path) -> None:
    numbers = np.repeat(np.arange(64, dtype=np.uint8), TAKEN)
    (tmp_path / "file").write_bytes(numbers.tobytes())
    parts = [set(sample(tmp_path / "file", 1, part, 2)[::TAKEN]) for part in (0, 1)]
    assert not parts[0] & parts[1]
    assert len(parts[0]) == 16


def test_a_dictionary_makes_pages_smaller() -> None:
    rng = random.Random(2)
    names = [rng.randbytes(40) for _ in range(100)]
    data = memoryview(b"".join(rng.choice(names) for _ in range(20_000)))
    without = measure(Zstd(3, 4096), data, 4096)
    with_one = measure(ZstdWithDictionary(3, 4096, train(data)), data, 4096)
    assert with_one.ratio > without.ratio > 1


def test_what_is_not_a_whole_unit_is_left_out() -> None:
    assert [len(block) for block in cut(memoryview(bytes(10)), 4)] == [4, 4]

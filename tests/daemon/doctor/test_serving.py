"""What is found on devices, by what their daemons say."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from vswapd.doctor import Level, Machine
from vswapd.doctor.serving import answer, discards, silence

OK, WARNING, FAILURE = Level
WELL = {
    "failed_reads": 0,
    "internal_errors": 0,
    "worker_restarts": 0,
    "backing": "/b",
    "backing_state": "attached",
    "backing_corrupt": 0,
    "backing_failed_reads": 0,
    "backing_failed_writes": 0,
    "memory_locked": True,
    "io_flusher": True,
    "oom_protected": True,
    "realtime": True,
}


@pytest.mark.parametrize("stats", [WELL, {}, {"failed_reads": "many", "backing": None}])
def test_a_device_that_is_well(stats: dict[str, object]) -> None:
    (found,) = answer("swap0", stats)
    assert (found.level, found.text) == (OK, "swap0 answers, and has nothing to complain of")


@pytest.mark.parametrize(
    ("stats", "level", "words"),
    [
        ({"failed_reads": 2}, FAILURE, "could not give 2 reads"),
        ({"internal_errors": 3}, FAILURE, "failed 3 requests for a fault of its own"),
        ({"backing_corrupt": 1}, FAILURE, "`vswap backing detach"),
        ({"backing_failed_reads": 4}, FAILURE, "could not read 4 times from /b"),
        ({"backing_failed_writes": 5}, WARNING, "could not write 5 times to /b"),
        ({"backing_state": "resting", "backing_failed_writes": 5}, WARNING, "writes nothing to /b"),
        ({"worker_restarts": 1}, WARNING, "at its worker number 2"),
        (
            {"memory_locked": False, "realtime": False},
            WARNING,
            "does without: its memory is not locked, it does not go first (SCHED_RR)",
        ),
    ],
)
def test_a_device_that_is_not(stats: dict[str, object], level: Level, words: str) -> None:
    (found,) = answer("swap0", {**WELL, **stats})
    assert (found.level, words in found.line, bool(found.remedy)) == (level, True, True)
    assert found.text.startswith("swap0 ")


def test_several_things_are_several_findings() -> None:
    found = list(answer("swap0", {**WELL, "failed_reads": 1, "worker_restarts": 1}))
    assert [each.level for each in found] == [FAILURE, WARNING]


@pytest.mark.parametrize(
    ("error", "level", "words"),
    [
        ("the daemon of a does not answer (waited 5 s)", FAILURE, "`vswap restart a`"),
        ("the daemon of a cannot be asked: cat: x: Permission denied", WARNING, "as that user"),
    ],
)
def test_a_device_without_an_answer(error: str, level: Level, words: str) -> None:
    (found,) = silence("a", error)
    assert (found.level, words in found.line) == (level, True)


@pytest.mark.parametrize(("text", "warns"), [("4294966784", False), ("0", True), (None, True)])
def test_discards(
    text: str | None, warns: bool, machine: Callable[[Mapping[str, str | None]], Machine]
) -> None:
    path = "sys/block/loop3/queue/discard_max_bytes"
    made = machine({} if text is None else {path: text})
    assert bool(list(discards(made, "a", "/dev/loop3"))) == warns

"""Who is measured when, and what becomes of those that fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.peers import Peer, PeerError
from bench.record import Failure, Record
from bench.report import Figures
from bench.turns import Step, carry_out, look, turns
from bench.work import Work

CORPUS = Path("corpus")
DISK = Peer("disk", "/swap", False, (), None)
NOTHING = Peer("nothing", "/dev/nothing", True, (), None, keeps=False)
STORE = Peer("store", "/dev/store", True, (), None)


@dataclass
class Kennel:
    """Peers that note when they start and end."""

    events: list[str] = field(default_factory=list)

    @contextmanager
    def start(self, peer: Peer, size: int) -> Iterator[Peer]:
        self.events.append(f"{peer.name} of {size}")
        try:
            yield peer
        finally:
            self.events.append(f"{peer.name} ended")


def work(name: str, swaps: bool = False, fails: Exception | None = None) -> Work:
    def measure(peer: Peer, corpus: Path) -> Figures:
        assert corpus == CORPUS
        if fails is not None:
            raise fails
        return {name: 1.0}

    return Work(name, name, 4096, swaps, measure)


def empty() -> Record:
    return Record("2026-01-01", {}, {})


def test_peers_take_turns_at_what_suits_them() -> None:
    peers = {peer.name: peer for peer in (DISK, NOTHING, STORE)}
    steps = turns(peers, [work("fio"), work("hog", swaps=True)], rounds=2)
    once = [("fio", "nothing"), ("fio", "store"), ("hog", "disk"), ("hog", "store")]
    wanted = [(number, *pair) for number in (1, 2) for pair in once]
    assert [(step.round, step.work.name, step.peer) for step in steps] == wanted


def test_every_step_has_a_new_peer_and_its_figures_are_kept() -> None:
    kennel, record = Kennel(), empty()
    steps = [Step(number, work("fio"), "store") for number in (1, 2)]
    carry_out(steps, {"store": lambda size: kennel.start(STORE, size)}, CORPUS, record)
    assert kennel.events == ["store of 4096", "store ended"] * 2
    assert record.results == {"store": [{"fio": 1.0}, {"fio": 1.0}]}


def test_a_failure_is_recorded_and_the_run_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    kennel, record = Kennel(), empty()
    works = [work("fio", fails=OSError("no answer\nfor long")), work("hog")]
    steps = [Step(1, each, "store") for each in works]
    carry_out(steps, {"store": lambda size: kennel.start(STORE, size)}, CORPUS, record)
    assert record.failures == [Failure("store", "fio", 1, "no answer")]
    assert record.results == {"store": [{"hog": 1.0}]}
    assert kennel.events.count("store ended") == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "1 of 2: round 1, fio, store: failed: no answer"
    assert said[1].startswith("2 of 2: round 1, hog, store: ")


def test_an_interrupt_ends_the_peer_and_the_run() -> None:
    kennel, record = Kennel(), empty()

    def interrupted(peer: Peer, corpus: Path) -> Figures:
        raise KeyboardInterrupt

    steps = [
        Step(1, work("fio"), "store"),
        Step(1, Work("hog", "hog", 4096, True, interrupted), "store"),
    ]
    with pytest.raises(KeyboardInterrupt):
        carry_out(steps, {"store": lambda size: kennel.start(STORE, size)}, CORPUS, record)
    assert kennel.events[-1] == "store ended"
    assert record.results == {"store": [{"fio": 1.0}]}
    assert record.failures == []


def test_a_peer_that_cannot_be_had_is_left_out_with_its_reason() -> None:
    kennel, record = Kennel(), empty()

    def missing(size: int) -> Kennel:
        raise PeerError("this kernel has none")

    starts = {"missing": missing, "store": lambda size: kennel.start(STORE, size)}
    assert look(starts, record) == {"store": STORE}  # type: ignore[arg-type]
    assert record.left_out == {"missing": "this kernel has none"}
    assert record.results == {"store": []}
    assert kennel.events[-1] == "store ended"

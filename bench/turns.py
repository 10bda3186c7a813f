"""Peers in turns: what is measured on which, in which order, and what becomes of failures."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.measure import MIB
from bench.peers import Peer
from bench.peers.catalogue import Start
from bench.record import Failure, Record
from bench.work import Work

__all__ = ["Step", "carry_out", "look", "say", "turns"]

LOOK_SIZE = 64 * MIB


@dataclass(frozen=True)
class Step:
    """One peer's turn at one work, in one round (from 1)."""

    round: int
    work: Work
    peer: str


def look(peers: Mapping[str, Start], record: Record) -> dict[str, Peer]:
    """Start each once, to see what it is. Those that cannot be had are left out of the record."""
    found = {}
    for name, start in peers.items():
        try:
            with start(LOOK_SIZE) as peer:
                found[name] = peer
                record.results[name] = []  # in this order
        except Exception as error:
            record.left_out[name] = _reason(error)
            say(f"{name} is left out: {_reason(error)}\n")
    return found


def turns(peers: Mapping[str, Peer], all_work: Sequence[Work], rounds: int) -> list[Step]:
    """All steps in their order: what suits, work by work, and the peers in turns."""
    return [
        Step(number, work, name)
        for number in range(1, rounds + 1)
        for work in all_work
        for name, peer in peers.items()
        if work.suits(peer)
    ]


def carry_out(
    steps: Sequence[Step], peers: Mapping[str, Start], corpus: Path, record: Record
) -> None:
    """Measure; what fails is recorded, and the run goes on."""
    for at, step in enumerate(steps, 1):
        say(f"{at} of {len(steps)}: round {step.round}, {step.work.name}, {step.peer}: ")
        began = time.monotonic()
        try:
            with peers[step.peer](step.work.size) as peer:
                figures = step.work.measure(peer, corpus)
        except Exception as error:
            failure = Failure(step.peer, step.work.name, step.round, _reason(error))
            record.failures.append(failure)
            say(f"failed: {failure.reason}\n")
        else:
            record.add(step.peer, step.round, figures)
            say(f"{time.monotonic() - began:.1f} s\n")


def _reason(error: Exception) -> str:
    """In one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def say(text: str) -> None:
    """Tell how far it got."""
    print(text, end="", file=sys.stderr, flush=True)

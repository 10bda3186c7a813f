"""What one run of the comparison found: every figure of every round, and where that was.

As JSON it is what plots and documents are made from, on another machine or a year later.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.report import Figures

__all__ = ["Failure", "Record", "RecordError", "load"]


class RecordError(Exception):
    """A file that holds no run. One line that says why."""


@dataclass(frozen=True)
class Failure:
    """Work on a peer that came to no end, in one round (from 1), and why."""

    peer: str
    work: str
    round: int
    reason: str


@dataclass(frozen=True)
class Record:
    """A run, which may have been ended before it was through.

    `machine` and `settings` are facts by name. `left_out` has the reason by the name of the
    peer. `results` has the figures of each round, of all sorts of work together, by peer.
    """

    date: str
    machine: dict[str, str]
    settings: dict[str, str]
    left_out: dict[str, str] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    results: dict[str, list[Figures]] = field(default_factory=dict)

    def add(self, peer: str, number: int, figures: Figures) -> None:
        """Add what was found in a round (from 1) to what else was found in it."""
        rounds = self.results.setdefault(peer, [])
        rounds.extend({} for _ in range(number - len(rounds)))
        rounds[number - 1].update(figures)

    def values(self, peer: str, figure: str) -> Sequence[float]:
        """One figure of a peer, in the rounds that have it."""
        return [run[figure] for run in self.results.get(peer, ()) if figure in run]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def load(path: Path) -> Record:
    """Read what `Record.save` wrote. Raises `RecordError`."""
    try:
        found = json.loads(path.read_text())
        failures = [Failure(**failure) for failure in found.pop("failures")]
        return Record(**found, failures=failures)
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}") from None
    except (AttributeError, KeyError, TypeError, ValueError):
        raise RecordError(f"{path} is not what the comparison writes") from None

"""What devices say now, what they said before, and what has happened between the two.

A counter begins at 0 with each worker, so only what the same worker said twice has a rate.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vswapd.exposition import Answer, Scraper
from vswapd.mounts import Device, devices

__all__ = ["Look", "Sample", "Watcher", "number", "printable", "sample_of", "word"]

_MOST = 1 << 64
_ANSWER_SECONDS = 2.0


@dataclass(frozen=True)
class Sample:
    """A device at a time, in seconds by the monotonic clock.

    `stats` is empty and `error` one line if its daemon does not answer. `before` is the last
    sample in which it did.
    """

    label: str
    mount: str
    time: float
    stats: dict[str, object] = field(default_factory=dict)
    error: str | None = None
    before: Sample | None = None

    def number(self, name: str) -> float:
        """A statistic; 0 if it is not there, or is no number that makes sense."""
        return number(self.stats.get(name))

    def word(self, name: str) -> str:
        """A statistic that is a text; empty if it is not there."""
        return word(self.stats.get(name))

    def rate(self, name: str) -> float | None:
        """How much a counter has grown in a second; None if that is not known."""
        before = self.before
        if before is None or not self.stats or self._worker() != before._worker():
            return None
        seconds, grown = self.time - before.time, self.number(name) - before.number(name)
        return grown / seconds if seconds > 0 and grown >= 0 else None

    def _worker(self) -> tuple[float, float]:
        return self.number("worker_pid"), self.number("worker_restarts")


@dataclass(frozen=True)
class Look:
    """All devices at about the same time, or the `problem` for which they are not known."""

    samples: Sequence[Sample] = ()
    problem: str | None = None


def number(value: object) -> float:
    """What another process says is a number; 0 if it is none, or none to calculate with."""
    return value if isinstance(value, int | float) and -_MOST < value < _MOST else 0


def word(value: object) -> str:
    """What another process says is a text, as `printable`; empty if it is none."""
    return printable(value) if isinstance(value, str) else ""


def printable(text: str) -> str:
    """With a question mark for each character that does not look like anything."""
    return "".join(each if each.isprintable() else "?" for each in text)


class Watcher:
    """Looks at the devices again and again."""

    def __init__(self, chosen: Device | None, clock: Callable[[], float] = time.monotonic) -> None:
        """At those that are there at the time, or at the one that is mounted where `chosen` is."""
        self._chosen = chosen
        self._clock = clock
        self._scraper = Scraper(_ANSWER_SECONDS, "stats.json")
        self._before: dict[str, Sample] = {}

    def look(self) -> Look:
        """At most two or three seconds later. One call at a time."""
        try:
            answers = self._scraper.ask(self._present())
        except OSError as error:  # there is no process or no memory to be had, for now
            return Look(problem=f"the devices cannot be asked: {error.strerror or error}")
        samples = [sample_of(each, self._clock(), self._before) for each in answers]
        # Who does not answer for a moment has a rate again when he does.
        known = {each.mount: each for each in samples if each.stats}
        present = {each.mount for each in samples}
        known = {**self._before, **known}
        self._before = {mount: each for mount, each in known.items() if mount in present}
        return Look(samples, self._gone(samples))

    def _present(self) -> list[Device]:
        chosen = self._chosen
        return [each for each in devices() if chosen is None or each.mount == chosen.mount]

    def _gone(self, samples: Sequence[Sample]) -> str | None:
        if samples:
            return None
        if self._chosen is None:
            return "no vswap device is here; `vswap up` makes one"
        return f"no vswap device is at {printable(self._chosen.mount)} any more"


def sample_of(answer: Answer, now: float, before: dict[str, Sample]) -> Sample:
    """What an answer says; `before` has the last samples by mount."""
    label, mount = printable(answer.label), answer.device.mount
    if answer.error is not None:
        return Sample(label, mount, now, error=printable(answer.error))
    try:
        stats = json.loads(answer.text)
    except (ValueError, RecursionError):
        stats = None
    if not isinstance(stats, dict) or not stats:
        return Sample(label, mount, now, error="the daemon answers, but not with statistics")
    last = before.get(mount)
    return Sample(label, mount, now, stats, before=last and _without_past(last))


def _without_past(sample: Sample) -> Sample:
    """Or each sample would keep all others before it."""
    return Sample(sample.label, sample.mount, sample.time, sample.stats)

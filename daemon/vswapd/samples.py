"""What devices say now, what they said before, and what has happened between the two.

A counter begins at 0 with each worker, so only what the same worker said twice has a rate.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vswapd.histogram import BUCKETS, Histogram
from vswapd.mounts import Device, devices
from vswapd.said import number, printable, word
from vswapd.scraper import Answer, Scraper

__all__ = ["Look", "Sample", "Watcher", "sample_of"]

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
        before = self._earlier()
        if before is None:
            return None
        seconds, grown = self.time - before.time, self.number(name) - before.number(name)
        return grown / seconds if seconds > 0 and grown >= 0 else None

    def latency(self, kind: str) -> Histogram | None:
        """How long the requests of a kind took since the sample before; None if it is not known."""
        before = self._earlier()
        now = self._histogram(kind)
        then = None if before is None else before._histogram(kind)
        if now is None or then is None:
            return None
        between = now.since(then)
        return between if min(between.counts, default=0) >= 0 else None

    def _earlier(self) -> Sample | None:
        """The sample before, if it is of the same worker."""
        before = self.before
        is_same = before is not None and self.stats and self._worker() == before._worker()
        return before if is_same else None

    def _worker(self) -> tuple[float, float]:
        return self.number("worker_pid"), self.number("worker_restarts")

    def _histogram(self, kind: str) -> Histogram | None:
        said = self.stats.get(f"{kind}_buckets")
        counts = said.split(",") if isinstance(said, str) and said else []
        is_sound = isinstance(said, str) and len(counts) <= BUCKETS
        if not is_sound or not all(each.isascii() and each.isdigit() for each in counts):
            return None
        # What is longer is no count, and would take its time to become a number.
        return Histogram(tuple(int(each[:20]) for each in counts))


@dataclass(frozen=True)
class Look:
    """All devices at about the same time, or the `problem` for which they are not known."""

    samples: Sequence[Sample] = ()
    problem: str | None = None


class Watcher:
    """Looks at the devices again and again."""

    def __init__(self, chosen: Device | None, clock: Callable[[], float] = time.monotonic) -> None:
        """At those that are there at the time, or at the one that is mounted where `chosen` is."""
        self._chosen = chosen
        self._scraper = Scraper(_ANSWER_SECONDS, "stats.json", clock)
        self._before: dict[str, Sample] = {}

    def look(self) -> Look:
        """At most two or three seconds later. One call at a time."""
        try:
            answers = self._scraper.ask(self._present())
        except OSError as error:  # there is no memory to be had, for now
            return Look(problem=f"the devices cannot be asked: {error.strerror or error}")
        samples = [sample_of(each, self._before) for each in answers]
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


def sample_of(answer: Answer, before: dict[str, Sample]) -> Sample:
    """What an answer says, at its own time; `before` has the last samples by mount."""
    label, mount, now = printable(answer.label), answer.device.mount, answer.time
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

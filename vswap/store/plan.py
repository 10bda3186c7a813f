"""What to do next to stay small: the policy, with no I/O and no lock.

Two things win memory. *Cleaning* a segment moves what lives in it together and frees the dead
space between. *Moving down* compresses pages that will hardly be read again in larger units
and harder. Both cost processor time, so how much is done depends on how pressing it is:

PRESSING  the memory limit is near (the high watermark): clean and move down without a pause.
BUSY      requests are coming in: clean when dead space is a good part of what is used, and no
          more than a part of the time.
QUIET     nobody is waiting: clean until little dead space is left, move down what is old or
          has been loaded.

Which segment to clean is the choice of Rosenblum and Ousterhout's log-structured file system:
the most (1 - u) * age / (1 + u), where u is the live share. Old segments are cleaned sooner,
for what lives in them will go on living; in young ones more will die by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vswap.geometry import SEGMENT_SIZE

__all__ = [
    "LEAST_GAIN",
    "MUCH_DEAD",
    "Mood",
    "Outlook",
    "Sealed",
    "Victim",
    "best",
    "choose",
    "duty",
    "emptiest",
    "hottest",
    "mood",
]

HIGH_WATERMARK = 0.9
"""From this share of the limit on, memory is pressing."""

_LEAST_DUTY = 0.1
_ALL_DUTY = 0.75
"""From so much dead space on, cleaning takes all the time it can get."""

LEAST_GAIN = 1 / 64
"""A segment of which less is dead is as good as full. Each cleaning takes away at least so much
dead space, so with no writes between them cleanings come to an end."""

MUCH_DEAD = 0.25
"""From this dead share on cleaning a segment is better than writing one to the disk."""

_YOUNGEST = 0.01


class Victim(NamedTuple):
    """A segment to clean, and its sequence when it was sealed: with another it is not the same."""

    segment: int
    sequence: int


@dataclass(frozen=True)
class Sealed:
    """Sealed segments: number, sequence, bytes alive, bytes of units, hot pages, youth.

    `hot` counts the live pages that the cold codec might make smaller; `born` is when the
    youngest page was written (`time.monotonic`).

    What is left at a segment's end, where no unit fitted, is not dead: cleaning would leave as
    much at the end of another.
    """

    segments: npt.NDArray[np.int64]
    sequence: npt.NDArray[np.int64]
    live: npt.NDArray[np.int32]
    used: npt.NDArray[np.int32]
    hot: npt.NDArray[np.int32]
    born: npt.NDArray[np.float64]

    @cached_property
    def dead(self) -> npt.NDArray[np.float64]:
        """The share of each that is dead: bytes of units that no live page needs."""
        share: npt.NDArray[np.float64] = (self.used - self.live) / SEGMENT_SIZE
        return share

    def victim(self, at: int) -> Victim:
        """The one at that place."""
        return Victim(int(self.segments[at]), int(self.sequence[at]))

    def dead_bytes(self) -> int:
        """Bytes that cleaning could win back."""
        return int((self.used - self.live).sum(dtype=np.int64))

    def without(self, stuck: set[int]) -> Sealed:
        """All but the segments in `stuck`."""
        if not stuck:
            return self
        keep = ~np.isin(self.segments, list(stuck))
        return Sealed(
            self.segments[keep],
            self.sequence[keep],
            self.live[keep],
            self.used[keep],
            self.hot[keep],
            self.born[keep],
        )


class Mood(Enum):
    """How pressing it is."""

    QUIET = 0
    BUSY = 1
    PRESSING = 2


_WORTH = {Mood.QUIET: 0.02, Mood.BUSY: MUCH_DEAD, Mood.PRESSING: 0.05}
"""Cleaning begins when this share of the sealed segments' bytes is dead."""


@dataclass(frozen=True)
class Outlook:
    """What the mood depends on: segments that writers may still take, and the limit."""

    room: int
    limit: int
    busy: bool


def mood(outlook: Outlook) -> Mood:
    """How pressing it is."""
    if outlook.limit - outlook.room >= outlook.limit * HIGH_WATERMARK:
        return Mood.PRESSING
    return Mood.BUSY if outlook.busy else Mood.QUIET


def choose(sealed: Sealed, mood: Mood, now: float, spare: float = 0.0) -> Victim | None:
    """The segment to clean next, or None while there is too little dead space to be worth it.

    `spare` is the part of a segment that is left where the cleaner appends.
    """
    dead = sealed.dead.sum()
    if dead + spare < 1 or dead < _WORTH[mood] * len(sealed.segments):
        return None
    return best(sealed, now)


def duty(sealed: Sealed) -> float:
    """The share of the time for cleaning while requests come in: the more is dead, the more."""
    if not len(sealed.segments):
        return _LEAST_DUTY
    return float(np.clip((sealed.dead.mean() / _ALL_DUTY) ** 2, _LEAST_DUTY, 1.0))


def best(sealed: Sealed, now: float) -> Victim | None:
    """The segment with the most benefit for its cost, or None if all are as good as full."""
    age = np.maximum(now - sealed.born, _YOUNGEST)
    score = sealed.dead * age / (2 - sealed.dead)
    return _most(sealed, score)


def emptiest(sealed: Sealed, spare: float = 0.0) -> Victim | None:
    """The segment that frees the most for the least work, for when room is wanted at once.

    None if all the dead space there is, with what is `spare`, would not make one segment.
    """
    if sealed.dead[sealed.dead >= LEAST_GAIN].sum() + spare < 1:
        return None
    return _most(sealed, sealed.dead)


def hottest(sealed: Sealed) -> Victim | None:
    """The segment that moving down would win most from: for when there is no dead space left."""
    if not sealed.hot.any():
        return None
    return sealed.victim(int(sealed.hot.argmax()))


def _most(sealed: Sealed, score: npt.NDArray[np.float64]) -> Victim | None:
    score = np.where(sealed.dead >= LEAST_GAIN, score, 0.0)
    if not score.any():
        return None
    return sealed.victim(int(score.argmax()))

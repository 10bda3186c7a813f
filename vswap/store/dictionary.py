"""The device's dictionary: what its pages have in common, for the cold codec, if that pays.

It depends on what runs on the machine, so it is tried out: pages that are moved down are
sampled; when there are enough a dictionary is trained on some and tried on the others, and
kept if it makes them smaller by `PAYS`. That is decided once. A dictionary that is kept lies in
the state, for nothing could be read without it, and never changes. docs/codecs.md has
measurements.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass

from vswap.codec import Bytes, Zstd, train
from vswap.geometry import MAX_UNIT_PAGES, PAGE_SHIFT, PAGE_SIZE
from vswap.store.region import Region

__all__ = ["Dictionary", "Sampler", "Trial", "try_out"]

REGION_SIZE = 128 << 10
PAYS = 0.02
"""A dictionary that saves less than this share of the bytes is not worth the time it costs."""

_SIZE = 112 << 10
_SAMPLES = 48
_FROM = 512
_TRIED_ON = 16
_FIELDS = struct.Struct("<Id")
_AT = 4
_CONTENT = _AT + _FIELDS.size
_UNIT_SIZE = MAX_UNIT_PAGES << PAGE_SHIFT


@dataclass(frozen=True)
class Trial:
    """What a dictionary saved, as a share of the bytes; `dictionary` is empty if too little."""

    saving: float
    dictionary: bytes


class Dictionary:
    """What was decided, in the state's region, and the dictionary if one was kept.

    The region holds a byte that is 1 once it has been decided, and from byte 4 the dictionary's
    length, the saving, and the dictionary.
    """

    def __init__(self, region: Region) -> None:
        """`region` must hold `REGION_SIZE` bytes."""
        self._memory = region.view
        self.content = b""
        self.saving: float | None = None
        if region.allocated() and self._memory[0]:  # reading a hole would allocate it
            length, self.saving = _FIELDS.unpack_from(self._memory, _AT)
            self.content = bytes(self._memory[_CONTENT : _CONTENT + length])

    def decide(self, trial: Trial) -> None:
        """Keep what won, for good: all of it is there before the byte says so."""
        assert self.saving is None
        self.content, self.saving = trial.dictionary, trial.saving
        self._memory[_CONTENT : _CONTENT + len(self.content)] = self.content
        _FIELDS.pack_into(self._memory, _AT, len(self.content), trial.saving)
        self._memory[0] = 1

    def codec(self, level: int) -> Zstd | None:
        """A codec that uses it; None if there is no dictionary."""
        return Zstd(level, _UNIT_SIZE, self.content) if self.content else None


class Sampler:
    """A random choice of the first full units that are moved down, each as likely as any other."""

    def __init__(self) -> None:
        """Nothing sampled; the choice is the same for the same units."""
        self._random = random.Random(0)  # noqa: S311 - a choice of samples
        self._seen = 0
        self._samples: list[bytes] = []

    def offer(self, data: bytes) -> None:
        """A unit's pages."""
        if len(data) != _UNIT_SIZE or self._seen >= _FROM:
            return
        self._seen += 1
        if len(self._samples) < _SAMPLES:
            self._samples.append(data)
        elif (at := self._random.randrange(self._seen)) < _SAMPLES:
            self._samples[at] = data

    def take(self) -> list[bytes]:
        """The samples, once, when there are enough to decide; nothing before and after.

        They are forgotten here: they are copies of somebody's memory.
        """
        if self._seen < _FROM:
            return []
        samples, self._samples = self._samples, []
        return samples


def try_out(samples: list[bytes], level: int) -> Trial:
    """Train on some samples, compress the others with it and without."""
    pages: list[Bytes] = [
        unit[at : at + PAGE_SIZE]
        for unit in samples[_TRIED_ON:]
        for at in range(0, len(unit), PAGE_SIZE)
    ]
    dictionary = train(pages, _SIZE, level)
    if not dictionary:
        return Trial(0.0, b"")
    plain, with_it = (
        sum(len(codec.compress(unit)) for unit in samples[:_TRIED_ON])
        for codec in (Zstd(level, _UNIT_SIZE), Zstd(level, _UNIT_SIZE, dictionary))
    )
    saving = 1 - with_it / plain
    return Trial(saving, dictionary if saving >= PAYS else b"")

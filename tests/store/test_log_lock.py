"""The log's lock: around every use of what it protects, and around nothing that takes long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from model.logs import Harness, each_page, freed, unit

from vswap.geometry import SEGMENT_SIZE
from vswap.store import entry
from vswap.store.places import OPEN

Maker = Callable[..., Harness]


class Guard:
    """Stands for one of the log's arrays or lists; notes each use without the lock."""

    def __init__(self, guarded: Any, lock: threading.Lock, unlocked: list[str]) -> None:  # noqa: ANN401
        self._guarded = guarded
        self._lock = lock
        self._unlocked = unlocked

    def _check(self, use: str) -> None:
        if not self._lock.locked():
            self._unlocked.append(f"{type(self._guarded).__name__}.{use}")

    def __len__(self) -> int:
        if not isinstance(self._guarded, bytearray):  # the length of that is fixed
            self._check("len")
        return len(self._guarded)

    def __getitem__(self, at: int) -> object:
        self._check("getitem")
        return self._guarded[at]

    def __setitem__(self, at: int, value: object) -> None:
        self._check("setitem")
        self._guarded[at] = value

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        self._check(name)
        return getattr(self._guarded, name)


def use_all(harness: Harness) -> None:
    """All that is done with a log."""
    log = harness.log
    freed(harness, 9)
    segment = log.take()
    log.add(segment, 2, 800, 2, 0, 0)
    log.seal(segment, SEGMENT_SIZE)
    log.mark_cold(each_page(unit(segment), 2))
    log.publish(2, [page | entry.COLD for page in each_page(unit(segment), 2)])
    log.restart(log.take())
    for idle in (False, True):
        log.maintain(idle)
        log.take()
    log.take()
    harness.region.refuse = 1
    with pytest.raises(OSError, match="no memory"):
        log.maintain(idle=True)
    log.set_limit(20)
    log.room()
    log.room_is_coming()
    with log.still():
        pass
    log.statistics()


def test_every_use_of_what_the_lock_protects_is_under_it(make_log: Maker) -> None:
    """LOG-LIVE and LOG-PLACE: all methods do their own locking."""
    harness = make_log(24, reserve=2)
    unlocked: list[str] = []
    for owner, name in (
        (harness.log._places, "state"),
        (harness.log._places, "_ready"),
        (harness.log._places, "_holes"),
        (harness.log.ledger, "_pages"),
        (harness.log.ledger, "_bytes"),
        (harness.log.ledger, "_hot"),
    ):
        setattr(owner, name, Guard(getattr(owner, name), harness.log._lock, unlocked))
    use_all(harness)
    assert unlocked == []


def test_memory_is_populated_and_punched_without_the_lock(
    make_log: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes its time for it, and data threads wait for the lock."""
    harness = make_log(24, reserve=2)
    locked: list[bool] = []
    for name in ("populate", "punch"):
        method = getattr(harness.region, name)

        def noting(*args: int, method: Callable[..., None] = method) -> None:
            locked.append(harness.log._lock.locked())
            method(*args)

        monkeypatch.setattr(harness.region, name, noting)
    use_all(harness)
    assert set(locked) == {False}


def test_nothing_changes_while_the_log_is_still(make_log: Maker) -> None:
    harness = make_log(4)
    segment = harness.take()
    with harness.log.still() as (states, ledger):
        assert harness.log._lock.locked()
        assert states[segment] == OPEN
        assert ledger is harness.log.ledger
    assert not harness.log._lock.locked()

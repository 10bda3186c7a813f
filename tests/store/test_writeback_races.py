"""Pages on their way to the disk, on it, or back, that others write, discard or read meanwhile.

Whatever the work does, it does under cluster locks, one after the other, and in calls of the
backing. Others get in between two of these. So each work is done again and again, and each time
something else happens before another lock is taken, or around a call of the backing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from model.disks import (
    EVERYTHING,
    SMALL_BATCH,
    Device,
    SpyBacking,
    before_lock,
    small_batches,
)
from model.moves import seal, sealed_segments, victim_of
from model.pages import filled, noise, text, zero

from vswap.geometry import CLUSTER_SLOTS, PAGE_SIZE
from vswap.store import Policy, writeback
from vswap.store.locks import ClusterLocks

POLICY = Policy("zstd-fast", 4)
SLOTS = 64
_MOST_STEPS = 500

Act = Callable[[Device], object]
Work = Callable[[Device], object]

# --- What is there, and what is done with it --------------------------------------------


def new_device() -> Device:
    """With a whole unit, one of noise, one that is partly dead, and one page."""
    device = Device(POLICY, slots=SLOTS, segments=12, disk=12)
    device.write(0, text(4))
    device.write(4, noise(4))
    device.write(8, text(4, 1))
    device.discard(9)
    device.write(12, noise(1, 1))
    return device


def with_pages_on_disk() -> Device:
    """The same on two disk segments, of which the second has lost pages since."""
    device = new_device()
    device.write_back(0, 8)
    device.write(16, noise(4, 2))
    device.write(20, text(4, 2))
    device.write_back()
    for slot in (1, 17, 18):
        device.discard(slot)
    return device


def write_back_selected(device: Device) -> None:
    device.write_back()


def write_back_segments(device: Device) -> None:
    """As it is done when memory is full."""
    seal(device.lane)
    store = device.store
    victims = [victim_of(store, segment) for segment in sealed_segments(store)]
    with store._upkeep.lock:
        for _ in store._upkeep.jobs.writeback.segments(victims):
            pass


def restack(device: Device) -> None:
    store = device.store
    with store._upkeep.lock:
        for _ in store._upkeep.jobs.restack.empty(store._parts.disk.log.full().segments):
            pass


def detach(device: Device) -> None:
    assert device.detach() == "detached"
    assert device.on_disk() == {}


WORKS: dict[str, tuple[Callable[[], Device], Work]] = {
    "writing back what is selected": (new_device, write_back_selected),
    "writing back segments": (new_device, write_back_segments),
    "cleaning the disk": (with_pages_on_disk, restack),
    "bringing everything back": (with_pages_on_disk, detach),
}

# --- What others do meanwhile -----------------------------------------------------------


def read_all(device: Device) -> None:
    assert device.read_wrong() == []


def write_and_write_again(device: Device) -> None:
    """In the end they are what they were, but in other places."""
    pages = device.right(0, 24)
    device.write(0, noise(24, 9))
    device.write(0, pages)


def discard_part(device: Device) -> None:
    offset = 6 * PAGE_SIZE + 512
    device.lane.discard(offset, 512)
    device.model.discard(offset, 512)


ACTS: dict[str, Act] = {
    "all is read": read_all,
    "a unit is written": lambda device: device.write(0, noise(4, 7)),
    "a unit of noise is written": lambda device: device.write(4, noise(4, 8)),
    "a page of a unit is written": lambda device: device.write(2, text(1, 7)),
    "a page of a partly dead unit is written": lambda device: device.write(10, noise(1, 7)),
    "a part of a page is written": lambda device: device.write(5, b"x" * 512, at=1024),
    "pages around are written": lambda device: device.write(3, noise(6, 7)),
    "pages are filled": lambda device: device.write(2, zero(3) + filled(3)),
    "a unit is discarded": lambda device: device.discard(0, 4),
    "a page of a unit is discarded": lambda device: device.discard(6),
    "a part of a page is discarded": discard_part,
    "all is discarded": lambda device: device.discard(0, SLOTS),
    "all is written": lambda device: device.write(0, noise(SLOTS, 6)),
    "all is written, and again as it was": write_and_write_again,
}


def check(device: Device, step: object) -> None:
    """Right after, and again when all is written back and read from there."""
    assert device.problems() == [], step
    if device.store.backing.statistics().backing_state == "none":
        device.store.backing.attach(SpyBacking(12))
    device.write_back()
    assert device.problems() == [], step


def assert_newest_at_each_lock(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], Device], work: Work, act: Act
) -> int:
    """Act before each lock in turn; how many there were."""
    for step in range(_MOST_STEPS):
        with make() as device:

            def meanwhile(device: Device = device, step: int = step) -> None:
                act(device)
                assert device.read_wrong() == [], step

            with before_lock(monkeypatch, step, meanwhile) as came:
                work(device)
            check(device, step)
            if not came.called:
                return step
    raise AssertionError("there are locks without end")


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("work", WORKS)
def test_the_newest_wins_before_each_lock(
    monkeypatch: pytest.MonkeyPatch, work: str, act: str
) -> None:
    """BACK-COPY, MOVE-SAME, DISK-LIVE: what a slot was given meanwhile is what it holds."""
    make, do = WORKS[work]
    assert assert_newest_at_each_lock(monkeypatch, make, do, ACTS[act]) > 4


CALLS = [
    *((work, "before_read") for work in WORKS if not work.startswith("writing")),
    *((work, "before_write") for work in WORKS if not work.startswith("bringing")),
    *((work, "after_write") for work in WORKS if not work.startswith("bringing")),
]


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize(("work", "when"), CALLS)
def test_the_newest_wins_while_the_disk_works(work: str, when: str, act: str) -> None:
    """BACK-COPY: the write is long, and nothing is locked for it."""
    make, do = WORKS[work]
    with make() as device:
        called: list[bool] = []

        def meanwhile(_: int) -> None:
            if not called:
                called.append(True)
                ACTS[act](device)
                assert device.read_wrong() == []

        setattr(device.disk, when, meanwhile)
        do(device)
        assert called
        check(device, when)


@pytest.mark.parametrize("act", ["a unit is written", "a page of a unit is discarded"])
@pytest.mark.parametrize("work", WORKS)
def test_the_newest_wins_when_more_than_one_disk_segment_is_filled(
    monkeypatch: pytest.MonkeyPatch, work: str, act: str
) -> None:
    """Before every fifth lock, with so much in memory and on disk."""
    small_batches(monkeypatch)
    make, do = WORKS[work]

    def larger() -> Device:
        device = make()
        device.write(24, noise(20, 3))
        if device.on_disk():
            device.write_back()
            device.discard(26)
            device.discard(33)
        return device

    for step in range(0, _MOST_STEPS, 5):
        with larger() as device:
            meanwhile = lambda device=device: ACTS[act](device)  # noqa: E731
            with before_lock(monkeypatch, step, meanwhile) as came:
                do(device)
            check(device, step)
            if not came.called:
                return
    raise AssertionError("there are locks without end")


# --- Between the pieces of a job --------------------------------------------------------


def rewrite_all(device: Device) -> None:
    """New content in all slots, and all of it on disk at once: in places that have become free."""
    device.write(0, noise(SLOTS, 5))
    device.write_back()


def rewrite_twice(device: Device) -> None:
    for seed in (6, 7):
        device.write(0, noise(SLOTS, seed))
        device.write_back()


BETWEEN: dict[str, Act] = {
    "a unit is written": ACTS["a unit is written"],
    "all is discarded": ACTS["all is discarded"],
    "all is written back": lambda device: device.write_back(),
    "all is written, and written back": rewrite_all,
    "all is written and written back, twice": rewrite_twice,
    "memory is cleaned": lambda device: device.store.compact(),
}

JOBS: dict[str, Callable[[Device], Iterator[int]]] = {
    "writing back what is selected": lambda device: device.store._upkeep.jobs._by_command.selected(
        [EVERYTHING], 0.0
    ),
    "writing back segments": lambda device: device.store._upkeep.jobs.writeback.segments(
        [victim_of(device.store, at) for at in sealed_segments(device.store)]
    ),
    "cleaning the disk": lambda device: device.store._upkeep.jobs.restack.empty(
        device.store._parts.disk.log.full().segments
    ),
}


def in_pieces(job: str) -> Device:
    """A device for a job of several pieces."""
    device = Device(POLICY, slots=SLOTS, segments=12, disk=24)
    device.write(0, noise(40))
    device.discard(9)
    if job == "cleaning the disk":
        device.write_back()
        for slot in range(0, 40, 5):
            device.discard(slot)
    seal(device.lane)
    return device


def act_between(device: Device, pieces: Iterator[int], step: int, act: Act) -> bool:
    """Act before the piece of that number; whether there was one."""
    for number in range(_MOST_STEPS):
        if number == step:
            act(device)
        with device.store._upkeep.lock:
            if next(pieces, None) is None:
                return number > step
    raise AssertionError("there are pieces without end")


@pytest.mark.parametrize("act", BETWEEN)
@pytest.mark.parametrize("job", JOBS)
def test_the_newest_wins_between_the_pieces_of_a_job(
    monkeypatch: pytest.MonkeyPatch, job: str, act: str
) -> None:
    """A command may write to the disk, and use disk segments again, between any two."""
    small_batches(monkeypatch)
    monkeypatch.setattr(writeback, "_PIECE", SMALL_BATCH // 4)
    step, more = 0, True
    while more:
        with in_pieces(job) as device:
            more = act_between(device, JOBS[job](device), step, BETWEEN[act])
            check(device, step)
        step += 1
    assert step > 1


def test_what_a_disk_segment_held_before_is_not_taken_for_what_it_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """MOVE-SAME, DISK-AGE: a disk segment is read to be emptied. Between two pieces of that all
    of it dies, and it is filled anew with the same slots' new pages, in the very same places.
    """
    small_batches(monkeypatch)
    with Device(Policy("stored", 1), slots=SLOTS, segments=12, disk=12) as device:
        device.store_on_disk(0, noise(15))  # as many as fill a disk segment
        device.store_on_disk(15, noise(15, 1))
        assert device.segments() == [0, 1]
        before = device.on_disk()
        store = device.store
        pieces = store._upkeep.jobs.restack.empty(store._parts.disk.log.full().segments)
        with store._upkeep.lock:
            next(pieces)  # all of 0 is staged
            next(pieces)  # that is written, in the midst of 1
        device.store_on_disk(40, noise(15, 3))  # where 0 was
        device.store_on_disk(15, noise(15, 2))  # where 1 was
        again = device.on_disk()
        assert [again[slot] for slot in range(15, 30)] == [before[slot] for slot in range(15, 30)]
        with store._upkeep.lock:
            for _ in pieces:
                pass
        assert device.read_wrong() == []


# --- Reads ------------------------------------------------------------------------------


def test_a_read_is_never_between_an_old_and_a_new_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is where it was, or where it comes to; each of them holds it."""
    seen: list[int] = []
    for name, (make, work) in WORKS.items():
        with make() as device:
            original = ClusterLocks.__getitem__
            busy: list[int] = []

            def look(
                self: ClusterLocks,
                cluster: int,
                device: Device = device,
                busy: list[int] = busy,
                original: Callable[..., object] = original,
            ) -> object:
                if not busy:
                    busy.append(1)
                    assert device.read_wrong() == []
                    seen.append(cluster)
                    busy.clear()
                return original(self, cluster)

            with monkeypatch.context() as patches:
                patches.setattr(ClusterLocks, "__getitem__", look)
                work(device)
            assert device.read_wrong() == [], name
    assert len(seen) > 20


assert SLOTS <= CLUSTER_SLOTS

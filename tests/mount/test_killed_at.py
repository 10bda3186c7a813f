"""The worker is killed at a named point, and nobody who uses the device notices.

What a worker may have done by then, and what its successor must do about it, is in
docs/concurrency.md ("What a crash leaves").
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mount.harness import (
    PAGE,
    SIZE,
    Start,
    aligned,
    errno_of,
    eventually,
    family,
    halt,
)
from mount.killed_at import (
    CLUSTER,
    MOST,
    QUICKLY,
    SECONDS,
    WITHOUT_RESEND,
    Point,
    Scene,
    Trap,
    mixed,
    noise,
    text,
)

from vswap.errors import UserError
from vswap.proto.abi import Opcode
from vswap.store import backing_make
from vswap.store.backing_make import make_file

pytestmark = pytest.mark.mount

MIB = 1 << 20
LARGE = MOST // PAGE
"""Pages of the largest request."""

ACROSS = CLUSTER - LARGE // 2
"""Where the largest request lies half in one cluster and half in the next."""

UNIT_PAGES = 4
"""Of a device's units, as it is by default."""

Serve = Callable[..., Scene]


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Who uses the device besides the test. Ended after the device, so nobody waits for it."""
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path / "trap")


@pytest.fixture
def serve(pool: ThreadPoolExecutor, trap: Trap, start: Start) -> Iterator[Serve]:
    """Starts a device whose workers can die at the points, by their names.

    It does nothing in the background, unless it is told otherwise.
    """
    scenes: list[Scene] = []

    def begin(
        here: Point | None = None,
        *,
        resend: bool = True,
        first: Point | None = None,
        prelude: str = "",
        **changed: object,
    ) -> Scene:
        points = {"here": here, "first": first}
        prelude += QUICKLY + ("" if resend else WITHOUT_RESEND)
        prelude += trap.prelude({name: one for name, one in points.items() if one is not None})
        values = {"name": "killed-at", "clean": False, **changed}
        device = start(prelude=prelude, env=trap.environment(), **values)
        assert device.told == "ready", device.stderr()
        scenes.append(Scene(device, trap, pool))
        return scenes[-1]

    yield begin
    trap.open()
    for scene in scenes:
        with suppress(OSError):
            os.close(scene.swap)


@pytest.fixture
def backing(tmp_path: Path) -> Path:
    """A file with room for 20 MiB, where one can be."""
    path = tmp_path / "backing"
    path.touch()
    try:
        os.close(os.open(path, os.O_RDWR | os.O_DIRECT))
        backing_make.check_path(str(path))
    except (OSError, UserError) as error:
        pytest.skip(f"the temporary directory cannot hold a backing: {error}")
    path.unlink()
    make_file(str(path), 20 * MIB)
    return path


resends = pytest.mark.parametrize("resend", [True, False], ids=["resend", "no-resend"])
"""With the kernel sending again what was not answered, and without."""


def kill_worker(scene: Scene) -> None:
    """From outside, whatever it is doing."""
    pid = scene.device.serving()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    scene.trap.deaths += 1


# --- What is asked for while it is killed ------------------------------------------------

Ask = Callable[[Scene], Any]


def ask_for_attributes(scene: Scene) -> None:
    """stat(2) asks the kernel alone; this asks the daemon, whatever the kernel knows."""
    told = subprocess.run(
        ["stat", "--cached=never", "--format=%s", scene.device.swap],
        capture_output=True,
        timeout=SECONDS,
        check=True,
    )
    assert int(told.stdout) == SIZE


def ask_for_what_is_missing(scene: Scene) -> None:
    assert not (scene.device.mount / "missing").exists()


def ask_for_names(scene: Scene) -> None:
    assert {"swap", "ctl", "stats.json"} < {one.name for one in scene.device.mount.iterdir()}


def ask_for_space(scene: Scene) -> None:
    assert os.statvfs(scene.device.mount).f_blocks == SIZE // PAGE


def ask_for_statistics(scene: Scene) -> None:
    assert scene.stats()["name"] == "killed-at"


def ask_for_swap(scene: Scene) -> None:
    os.close(os.open(scene.device.swap, os.O_RDWR))


def ask_for_data(scene: Scene) -> None:
    """lseek(2), with an open file of its own."""
    fd = os.open(scene.device.swap, os.O_RDWR)
    try:
        assert os.lseek(fd, 0, os.SEEK_DATA) == 0
    finally:
        os.close(fd)


WRITES: dict[str, Ask] = {
    "a page": lambda scene: scene.write(3, noise(1, 7)),
    "a large write": lambda scene: scene.write(ACROSS, mixed(LARGE, 7)),
    "a part of a page": lambda scene: scene.write(5, noise(2, 7)[: PAGE + 100], 1000),
    "zeros": lambda scene: scene.write(8, bytes(24 * PAGE)),
}
"""Over what is there already."""

DISCARDS: dict[str, Ask] = {
    "a discard": lambda scene: scene.discard(2, CLUSTER + 100),
    "a small discard": lambda scene: scene.discard(6, 5),
}

READS: dict[str, Ask] = {
    "a page read": lambda scene: scene.read(3, 1),
    "a large read": lambda scene: scene.read(ACROSS, LARGE),
}

OTHERS: dict[str, tuple[Opcode, Ask]] = {
    "lseek": (Opcode.LSEEK, ask_for_data),
    "open": (Opcode.OPEN, ask_for_swap),
    "lookup": (Opcode.LOOKUP, ask_for_what_is_missing),
    "getattr": (Opcode.GETATTR, ask_for_attributes),
    "statfs": (Opcode.STATFS, ask_for_space),
    "readdirplus": (Opcode.READDIRPLUS, ask_for_names),
    "open stats": (Opcode.OPEN, ask_for_statistics),
    "read stats": (Opcode.READ, ask_for_statistics),
    "flush stats": (Opcode.FLUSH, ask_for_statistics),
}

OPCODES: dict[str, tuple[Opcode, Ask]] = {
    **{name: (Opcode.WRITE, ask) for name, ask in WRITES.items()},
    **{name: (Opcode.FALLOCATE, ask) for name, ask in DISCARDS.items()},
    **{name: (Opcode.READ, ask) for name, ask in READS.items()},
    **OTHERS,
}


def of(opcode: Opcode, buffer: str = "a[0]._buffer") -> str:
    """Whether the request in a receive buffer is of that kind."""
    return f"int.from_bytes({buffer}[4:8], 'little') == {int(opcode)}"


def filled(scene: Scene) -> None:
    """Two clusters of everything."""
    scene.write(0, mixed(2 * CLUSTER))


def on_received(opcode: Opcode) -> Point:
    """Its request lies in a receive buffer, and that is all."""
    return Point("before", "vswapd.channel.router:Router.decode", only=of(opcode))


RECEIVED = [
    *(pytest.param(what, True, id=f"{what}-resend") for what in OPCODES),
    *(pytest.param(what, False, id=f"{what}-no-resend") for what in ("a large write", *OTHERS)),
]


@pytest.mark.parametrize(("what", "resend"), RECEIVED)
def test_with_a_request_that_has_just_been_received(
    what: str, resend: bool, serve: Serve, trap: Trap
) -> None:
    opcode, ask = OPCODES[what]
    scene = serve(on_received(opcode), resend=resend)
    filled(scene)
    trap.arm()
    ask(scene)
    scene.survives()


# --- Between storing, the mark, the reply and the release of the buffer ------------------

DONE: dict[str, Point] = {
    "stored, not marked": Point("before", "vswapd.channel.done:Done.succeeded"),
    "marked, not answered": Point("after", "vswapd.channel.done:Done.succeeded"),
}

FORGET = "vswapd.channel.receiver:Receiver.forget"


@pytest.mark.parametrize("what", ["a page", "a large write", "a part of a page", "a discard"])
@pytest.mark.parametrize("where", DONE)
def test_with_a_change_that_is(what: str, where: str, serve: Serve, trap: Trap) -> None:
    scene = serve(DONE[where])
    filled(scene)
    trap.arm()
    OPCODES[what][1](scene)
    stats = scene.survives()
    assert (stats["writes"] + stats["discards"] > 0) == (where == "stored, not marked")


@pytest.mark.parametrize("what", [*WRITES, *DISCARDS, *READS, "lookup", "open stats"])
def test_with_a_request_that_is_answered_and_still_in_its_buffer(
    what: str, serve: Serve, trap: Trap
) -> None:
    opcode, ask = OPCODES[what]
    scene = serve(Point("before", FORGET, only=of(opcode)))
    filled(scene)
    trap.arm()
    ask(scene)
    scene.survives()


WRITING = of(Opcode.WRITE)

FAILED: dict[str, Point] = {
    "before the mark": Point("before", "vswapd.channel.done:Done.failed"),
    "after the mark": Point("after", "vswapd.channel.done:Done.failed"),
    "after the reply": Point("before", FORGET, only=WRITING),
}


def fill_up(scene: Scene) -> None:
    """Write noise until there is no room for 1 MiB more."""
    page = 0
    data = noise(LARGE)
    while errno_of(partial(os.pwrite, scene.swap, aligned(data), page * PAGE)) == 0:
        scene.expect(page, data)
        page += LARGE
    assert page > LARGE


@pytest.mark.parametrize("where", FAILED)
def test_with_a_write_that_finds_no_room(where: str, serve: Serve, trap: Trap) -> None:
    scene = serve(FAILED[where], memory_limit=16 * MIB)
    fill_up(scene)
    trap.arm()
    late = aligned(noise(LARGE, 1))
    assert errno_of(lambda: os.pwrite(scene.swap, late, SIZE // 2)) == errno.ENOSPC
    scene.expect(SIZE // 2 // PAGE, bytes(late[:0]))
    scene.survives(settled={"failed_writes"})


def gate(opcode: Opcode) -> Point:
    """Its request is answered, and whoever served it is stopped for a while, and dies."""
    return Point("before", FORGET, only=of(opcode), gated=True)


def newer(scene: Scene) -> None:
    """Write over what was asked for before, once that has been answered."""
    assert eventually(lambda: scene.trap.reached)
    for page in (ACROSS, ACROSS + 1, CLUSTER, ACROSS + LARGE - 1):
        scene.write(page, noise(1, page))
    scene.write(ACROSS + 8, text(16, 99))
    scene.discard(ACROSS + 64, 8)
    scene.trap.open()


def test_a_write_that_was_answered_is_not_done_again_over_newer_data(
    serve: Serve, trap: Trap
) -> None:
    scene = serve(gate(Opcode.WRITE))
    filled(scene)
    trap.arm()
    scene.write(ACROSS, mixed(LARGE, 5))
    newer(scene)
    scene.survives()


def test_a_discard_that_was_answered_is_not_done_again_over_newer_data(
    serve: Serve, trap: Trap
) -> None:
    scene = serve(gate(Opcode.FALLOCATE))
    filled(scene)
    trap.arm()
    scene.discard(ACROSS, LARGE)
    newer(scene)
    scene.survives()


def test_a_write_that_had_no_room_is_not_done_later_over_newer_data(
    serve: Serve, trap: Trap
) -> None:
    scene = serve(gate(Opcode.WRITE), memory_limit=16 * MIB)
    fill_up(scene)
    trap.arm()
    late = aligned(noise(LARGE, 1))
    assert errno_of(lambda: os.pwrite(scene.swap, late, ACROSS * PAGE)) == errno.ENOSPC
    assert eventually(lambda: trap.reached)
    scene.discard(CLUSTER, 2 * CLUSTER)  # now there would be
    newer(scene)
    scene.survives(settled={"failed_writes"})


# --- Between data, entry and counts ------------------------------------------------------

TABLE = "vswap.store.table:SwapTable"
PARTS = "vswap.store.parts:Parts"
HALF_OF_THEM = "(a[0], a[1], a[2][: len(a[2]) // 2])"
HALF_THE_COUNT = "(a[0], a[1], a[2] // 2)"
LARGE_WRITE, ZEROS, DISCARD = "a large write", "zeros", "a discard"

STORING: dict[str, tuple[Point, str]] = {
    "a page is appended": (Point("after", "vswap.store.appender:Appender.append"), "a page"),
    "its entry is still the old one": (Point("before", f"{TABLE}.exchange"), "a page"),
    "its entry is the new one": (Point("after", f"{TABLE}.exchange"), "a page"),
    "a part of a page is appended": (
        Point("after", "vswap.store.appender:Appender.append"),
        "a part of a page",
    ),
    "the first unit of many is appended": (
        Point("after", "vswap.store.appender:Appender.append"),
        LARGE_WRITE,
    ),
    "some units of many are appended": (
        Point("after", "vswap.store.appender:Appender.append", skip=20),
        LARGE_WRITE,
    ),
    "all units of many are appended": (Point("before", f"{TABLE}.exchange"), LARGE_WRITE),
    "half of the entries are new": (
        Point("within", f"{TABLE}.exchange", part=HALF_OF_THEM),
        LARGE_WRITE,
    ),
    "the first of two clusters is new, not counted": (
        Point("after", f"{TABLE}.exchange"),
        LARGE_WRITE,
    ),
    "the first of two clusters is new, and counted": (Point("after", f"{PARTS}.put"), LARGE_WRITE),
    "the second of two clusters is the old one": (
        Point("before", f"{TABLE}.exchange", skip=1),
        LARGE_WRITE,
    ),
    "the second of two clusters is new, not counted": (
        Point("after", f"{TABLE}.exchange", skip=1),
        LARGE_WRITE,
    ),
    "a word is taken": (Point("after", "vswap.store.words:FillWords.take"), LARGE_WRITE),
    "words are not counted": (Point("before", "vswap.store.words:FillWords.publish"), LARGE_WRITE),
    "bits are set, entries not gone": (Point("after", "vswap.store.zeromap:Zeromap.set"), ZEROS),
    "entries are gone for zeros": (Point("after", f"{TABLE}.exchange"), ZEROS),
    "bits are not cleared, entries come": (
        Point("before", "vswap.store.zeromap:Zeromap.clear"),
        LARGE_WRITE,
    ),
    "nothing is discarded": (Point("before", f"{TABLE}.empty"), DISCARD),
    "half of a cluster is discarded": (
        Point("within", f"{TABLE}.empty", part=HALF_THE_COUNT),
        DISCARD,
    ),
    "a cluster is discarded, not counted": (Point("after", f"{TABLE}.empty"), DISCARD),
    "a cluster is discarded, its bits not cleared": (
        Point("before", "vswap.store.zeromap:Zeromap.clear"),
        DISCARD,
    ),
    "the second of two clusters is not discarded": (
        Point("before", f"{TABLE}.empty", skip=1),
        DISCARD,
    ),
    "a small range is discarded, not counted": (
        Point("after", f"{TABLE}.exchange"),
        "a small discard",
    ),
}


@pytest.mark.parametrize("where", STORING)
def test_when(where: str, serve: Serve, trap: Trap) -> None:
    point, what = STORING[where]
    scene = serve(point)
    filled(scene)
    trap.arm()
    OPCODES[what][1](scene)
    scene.survives()


@pytest.mark.parametrize("when", ["before", "after"])
def test_when_an_empty_cluster_is_given_back(when: str, serve: Serve, trap: Trap) -> None:
    # A release that has something to do, for it is asked for after every discard.
    emptied = "not a[0].counts[a[1]]"
    scene = serve(Point(when, f"{TABLE}.release", only=emptied))
    filled(scene)
    trap.arm()
    scene.discard(0, 2 * CLUSTER)
    stats = scene.survives()
    assert stats["clusters_used"] == stats["table_bytes"] == 0


# --- In the middle of upkeep -------------------------------------------------------------

MOVE, REPLACE = f"{PARTS}.move", f"{TABLE}.replace"
APPEND, COPY = (f"vswap.store.appender:Appender.{name}" for name in ("append", "copy"))

CLEANING: dict[str, Point] = {
    "before the first unit": Point("before", "vswap.store.cleaner:Cleaner._move"),
    "a unit is copied": Point("after", COPY, skip=5),
    "a unit is compressed anew": Point("after", APPEND, skip=5),
    "before units are moved": Point("before", MOVE, skip=30),
    "half of a unit's entries are new": Point("after", REPLACE, skip=33),
    "entries are new, not counted": Point("before", "vswap.store.log:Log.publish", skip=30),
    "units are moved": Point("after", MOVE, skip=30),
}


@pytest.mark.parametrize("where", CLEANING)
def test_in_the_middle_of_cleaning(where: str, serve: Serve, trap: Trap) -> None:
    scene = serve(CLEANING[where])
    pages = 3 * CLUSTER
    scene.write(0, mixed(pages))
    for page in range(0, pages, 32):
        scene.discard(page, 16)
        scene.write(page + 17, noise(2, page))
    trap.arm()
    assert scene.give("compact")[0] == errno.ECANCELED
    scene.settle()
    scene.read_all()
    assert scene.done("check").startswith("ok: ")
    before = scene.stats()["mem_used_total"]
    assert int(scene.done("compact").split()[0]) > 0
    assert scene.survives()["mem_used_total"] < before


MOVING_DOWN: dict[str, Point] = {
    "a unit is appended": Point("after", APPEND, skip=3),
    "before pages are moved": Point("before", MOVE, skip=3),
    "half of a unit's entries are new": Point("after", REPLACE, skip=40),
    "pages are moved": Point("after", MOVE, skip=3),
    "pages are marked": Point("after", f"{PARTS}.mark_cold", skip=3),
}


@pytest.mark.parametrize("where", MOVING_DOWN)
def test_in_the_middle_of_moving_down(where: str, serve: Serve, trap: Trap) -> None:
    scene = serve(MOVING_DOWN[where])
    scene.write(0, mixed(3 * CLUSTER))
    trap.arm()
    kind = "recompress type=huge" if "marked" in where else "recompress"
    assert scene.give(kind)[0] == errno.ECANCELED
    scene.settle()
    scene.read_all()
    assert scene.done("check").startswith("ok: ")
    scene.done("recompress")
    assert scene.survives()["cold_pages"] > CLUSTER


DECIDE_SOON = """
import vswap.store.dictionary
vswap.store.dictionary._FROM = 64
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_when_a_dictionary_is_decided_on(when: str, serve: Serve, trap: Trap) -> None:
    decide = Point(when, "vswap.store.dictionary:Dictionary.decide")
    scene = serve(decide, prelude=DECIDE_SOON)
    scene.write(0, text(80 * 16))
    trap.arm()
    assert scene.give("recompress")[0] == errno.ECANCELED
    scene.settle()
    decided = scene.stats()["dictionary_bytes"]
    assert bool(decided) == (when == "after")
    scene.done("recompress")
    scene.survives()


def on_disk(scene: Scene, pages: int = 1024) -> None:
    """Noise that is written back, all of it."""
    scene.write(0, noise(pages))
    assert scene.done("writeback huge") == f"{pages} pages written back\n"


WRITING_BACK: dict[str, Point] = {
    "a unit is staged": Point("after", "vswap.store.batch:Batch.add", skip=30),
    "before a segment is written": Point("before", "vswap.store.disk:Disk.write"),
    "a segment is written": Point("after", "vswap.store.disk:Disk.write"),
    "another segment is written": Point("after", "vswap.store.disk:Disk.write", skip=2),
    "before a segment has its sequence": Point("before", "vswap.store.disk_log:DiskLog.fill"),
    "a segment has its sequence": Point("after", "vswap.store.disk_log:DiskLog.fill"),
    "between two units": Point("before", MOVE, skip=20),
    "within a unit": Point("after", REPLACE, skip=81),
    "entries are new, not counted": Point("before", "vswap.store.log:Log.publish", skip=20),
    "entries are counted in memory only": Point(
        "before", "vswap.store.disk_log:DiskLog.publish", skip=20
    ),
}


@pytest.mark.parametrize("where", WRITING_BACK)
def test_in_the_middle_of_writing_back(where: str, serve: Serve, trap: Trap, backing: Path) -> None:
    scene = serve(WRITING_BACK[where], backing=str(backing))
    scene.write(0, noise(1024))
    trap.arm()
    assert scene.give("writeback huge")[0] == errno.ECANCELED
    scene.settle()
    scene.read_all()
    assert scene.done("check").startswith("ok: ")
    scene.done("writeback huge")
    assert scene.stats()["backing_pages"] == 1024  # what is read twice comes back
    stats = scene.survives()
    assert (stats["backing_failed_reads"], stats["backing_corrupt"]) == (0, 0)


def test_in_the_middle_of_writing_back_for_a_writer(
    serve: Serve, trap: Trap, backing: Path
) -> None:
    """More than memory may hold, with two deaths, and nobody told to write back."""
    written = Point("after", "vswap.store.disk:Disk.write", skip=3)
    scene = serve(written, backing=str(backing), memory_limit=16 * MIB, clean=True)
    trap.arm(deaths=2)
    for megabyte in range(24):
        scene.write(megabyte * LARGE, noise(LARGE, megabyte))
    assert scene.survives()["backing_pages"] > 0


BRING_BACK = "vswap.store.drain:Drain._bring_back"
UNITS = 1024 // UNIT_PAGES

DETACHING: dict[str, Point] = {
    "it is noted, not begun": Point("before", "vswap.store.detach:Detach.resume"),
    "before the first unit": Point("before", BRING_BACK),
    "a unit in the middle": Point("before", BRING_BACK, skip=UNITS // 2),
    "within a unit": Point("after", REPLACE, skip=2 * UNITS + 1),
    "the last unit": Point("before", BRING_BACK, skip=UNITS - 1),
    "after the last unit": Point("after", BRING_BACK, skip=UNITS - 1),
    "before the backing is closed": Point("before", "vswap.store.disk:Disk.let_go"),
    "before it is let go": Point("before", "vswapd.office:Office.drop_backing"),
    "it is let go": Point("after", "vswapd.office:Office.drop_backing"),
    "there is no disk any more": Point("after", "vswap.store.disk_log:DiskLog.resize"),
    "it has ended": Point("after", "vswap.store.detach:Detach._end"),
}


@pytest.mark.parametrize("where", DETACHING)
def test_in_the_middle_of_detaching(where: str, serve: Serve, trap: Trap, backing: Path) -> None:
    scene = serve(DETACHING[where], backing=str(backing))
    on_disk(scene)
    trap.arm()
    assert scene.give("backing detach")[0] in (0, errno.ECANCELED)
    scene.settle()
    assert eventually(lambda: scene.stats()["backing_state"] == "none")
    let_go = where in ("it is let go", "there is no disk any more", "it has ended")
    assert scene.stats()["detach_result"] == ("" if let_go else "detached")
    scene.read_all()

    # Nothing of it is left to be done to the next one.
    scene.done(f"backing attach {backing}")
    assert scene.done("writeback huge") == "1024 pages written back\n"
    stats = scene.stats()
    assert (stats["backing_state"], stats["backing_pages"]) == ("attached", 1024)
    scene.survives()


def test_with_a_backing_that_was_let_go_and_a_supervisor_that_has_not_heard_of_it(
    serve: Serve, backing: Path
) -> None:
    scene = serve(backing=str(backing))
    on_disk(scene, 256)
    worker = scene.device.serving()
    halt(scene.device.pid)
    try:
        scene.done("backing detach")
        assert eventually(lambda: scene.stats()["backing_state"] == "none")
        assert scene.device.serving() == worker
        kill_worker(scene)
    finally:
        os.kill(scene.device.pid, signal.SIGCONT)
    assert scene.stats()["backing_state"] == "none"
    scene.survives()


LIMITING: dict[str, tuple[Point, int]] = {
    "not in force": (Point("before", "vswap.store.store:Store._use_memory_limit"), 48 * MIB),
    "not kept": (Point("before", "vswap.store.state:State.keep_memory_limit"), 48 * MIB),
    "kept": (Point("after", "vswap.store.state:State.keep_memory_limit"), 32 * MIB),
}


@pytest.mark.parametrize("where", LIMITING)
def test_in_the_middle_of_a_change_of_the_limit(where: str, serve: Serve, trap: Trap) -> None:
    point, limit = LIMITING[where]
    scene = serve(point, memory_limit=48 * MIB)
    filled(scene)
    trap.arm()
    assert scene.give("memory_limit 32M")[0] == errno.ECANCELED
    assert scene.survives()["mem_limit"] == limit


# --- In the middle of a takeover ---------------------------------------------------------

TAKING_OVER: dict[str, Point] = {
    "before the derivation": Point("before", "vswap.store.store:derive"),
    "within the derivation": Point("after", "vswap.store.tally:Tally.add"),
    "after the derivation": Point("after", "vswap.store.store:derive"),
    "before the buffers are looked at": Point("before", "vswapd.channel.router:Router.redo"),
    "one buffer is looked at": Point("after", "vswapd.channel.router:Router.redo"),
    "all buffers are looked at": Point("after", "vswapd.channel.router:Router.redo", skip=1),
    "a buffer is released": Point(
        "after", FORGET, only="threading.current_thread() is threading.main_thread()"
    ),
    "nothing is outstanding any more": Point(
        "after", "vswapd.channel.outstanding:Outstanding.clear"
    ),
    "the kernel is asked": Point("after", "vswapd.channel.router:Router.ask_again"),
    "one data thread runs": Point("after", "vswapd.channel.threads:DataThread.start"),
    "before the bridge is greeted": Point("before", "vswapd.control.bridge:Bridge.greet"),
    "before it is told": Point("before", "vswapd.office:Office.serving"),
    "it is told": Point("after", "vswapd.office:Office.serving"),
}

WITHOUT = {
    "within the derivation",
    "one buffer is looked at",
    "all buffers are looked at",
    "one data thread runs",
    "before the bridge is greeted",
    "it is told",
}
"""Points that are tried without a resend, too."""

SUCCESSORS = [
    *(pytest.param(where, 1 + at % 2, True, id=where) for at, where in enumerate(TAKING_OVER)),
    *(pytest.param(where, 2, True, id=f"{where}-twice") for where in list(TAKING_OVER)[::2]),
    *(pytest.param(where, 2, False, id=f"{where}-no-resend") for where in sorted(WITHOUT)),
]


@pytest.mark.parametrize(("where", "deaths", "resend"), SUCCESSORS)
def test_in_the_middle_of_a_takeover(
    where: str, deaths: int, resend: bool, serve: Serve, trap: Trap
) -> None:
    """With a write that is stored, but not marked; and others."""
    writing = Point("before", "vswapd.channel.done:Done.succeeded", gated=True)
    scene = serve(TAKING_OVER[where], first=writing, resend=resend)
    filled(scene)
    trap.arm("first")
    scene.meanwhile(lambda: scene.write(ACROSS, mixed(LARGE, 5)))
    assert eventually(lambda: trap.reached)
    trap.arm(deaths=deaths)
    scene.expect(2 * CLUSTER, noise(2, 3))
    scene.meanwhile(lambda: os.pwrite(scene.swap, noise(2, 3), 2 * CLUSTER * PAGE))
    scene.meanwhile(lambda: scene.read(3, 5))
    scene.meanwhile(lambda: ask_for_what_is_missing(scene))
    scene.meanwhile(lambda: ask_for_space(scene))
    trap.open()
    scene.survives()


def named(scene: Scene, name: str) -> list[int]:
    """The daemon's processes of that name."""
    found = []
    for pid in family(scene.device.pid):
        with suppress(OSError):
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            if Path(f"/proc/{pid}/comm").read_text() == f"{name}\n" and state != "Z":
                found.append(pid)
    return found


def has_another(scene: Scene, name: str, before: list[int]) -> bool:
    """Whether there is a process of that name that was not there before."""
    return not set(before).issuperset(named(scene, name))


FORKS, STANDBY = "vswap-forks", "vswap-standby"


@pytest.mark.parametrize("who", [(STANDBY,), (FORKS,), (FORKS, STANDBY)], ids=" and ".join)
def test_others_are_killed_and_then_the_worker(who: tuple[str, ...], serve: Serve) -> None:
    scene = serve()
    filled(scene)
    assert eventually(lambda: bool(named(scene, STANDBY)))
    before = {name: named(scene, name) for name in who}
    for name in who:
        for pid in before[name]:
            os.kill(pid, signal.SIGKILL)
    for name in who:
        assert eventually(partial(has_another, scene, name, before[name]))
    scene.read_all()
    kill_worker(scene)
    scene.write(ACROSS, mixed(LARGE, 6))
    scene.survives()


def test_all_are_killed_at_once_but_the_supervisor(serve: Serve) -> None:
    scene = serve()
    filled(scene)
    for pid in named(scene, FORKS) + named(scene, STANDBY):
        os.kill(pid, signal.SIGKILL)
    kill_worker(scene)  # before the supervisor can have another standby
    scene.write(ACROSS, mixed(LARGE, 6))
    scene.trap.deaths = scene.stats()["worker_restarts"]
    assert scene.trap.deaths in (1, 2)  # the standby counts if it was told to serve, dead already
    scene.survives()


# The thread that unmounts comes back when the supervisor has closed its loop.
UNMOUNTS_SLOWLY = """
import threading
from vswapd import fusemount
from vswapd.loop import Loop
closed, unmount, close = threading.Event(), fusemount.unmount, Loop.close
def slow(*arguments, **keywords):
    unmount(*arguments, **keywords)
    if threading.current_thread().name == "vswap-unmount":
        closed.wait(10)
def waiting(self):
    close(self)
    closed.set()
    for thread in threading.enumerate():
        if thread.name == "vswap-unmount":
            thread.join(10)
fusemount.unmount, Loop.close = slow, waiting
"""


def test_the_end_is_clean_also_if_unmounting_returns_late(serve: Serve) -> None:
    scene = serve(supervisor=UNMOUNTS_SLOWLY)
    kill_worker(scene)
    scene.survives()
    assert "Exception" not in scene.device.stderr()


# --- What others wait for ----------------------------------------------------------------

FINISH = "vswapd.channel.fetchers:Fetchers._finish"


PARKED: dict[str, Point] = {
    "handed over": Point("before", "vswapd.channel.fetchers:Fetchers.answer"),
    "not begun": Point("before", FINISH),
    "fetched": Point("after", "vswap.store.lane:FetchLane.finish"),
    "answered": Point("after", "vswapd.channel.fetchers:Fetchers._reply"),
}


@resends
@pytest.mark.parametrize("where", PARKED)
def test_with_reads_that_wait_for_the_disk(
    where: str, resend: bool, serve: Serve, trap: Trap, backing: Path
) -> None:
    scene = serve(PARKED[where], resend=resend, backing=str(backing))
    on_disk(scene)
    trap.arm(deaths=2)
    for page in (1000, 500, 200, 30):
        scene.meanwhile(partial(scene.read, page, 3))
    for page in range(900, 520, -5):
        if trap.sprung:
            break
        scene.read(page, 3)  # one worker may have answered all of the others
    scene.survives()


def test_in_the_middle_of_bringing_back_what_was_read_twice(
    serve: Serve, trap: Trap, backing: Path
) -> None:
    scene = serve(Point("before", MOVE, skip=20), backing=str(backing))
    on_disk(scene)
    scene.read_all()
    trap.arm()
    scene.read_all()
    scene.survives()


@resends
def test_a_read_that_was_answered_is_not_done_again_for_ever(
    resend: bool, serve: Serve, trap: Trap, backing: Path
) -> None:
    scene = serve(Point("before", FINISH), resend=resend, backing=str(backing))
    on_disk(scene)
    trap.arm()
    scene.read(1000, 3)
    scene.settle()
    scene.stats()  # and so what was answered has been noted
    kill_worker(scene)  # while nobody wants anything
    stats = scene.stats()
    assert (stats["worker_restarts"], stats["parked"], stats["late_replies"]) == (2, 0, 0)
    scene.survives()


NAMESPACE = "vswapd.control.namespace:Namespace"


@resends
@pytest.mark.parametrize("deaths", [1, 2])
@pytest.mark.parametrize("place", [f"{NAMESPACE}.open", f"{NAMESPACE}.read"])
def test_with_a_request_that_was_passed_on(
    place: str, deaths: int, resend: bool, serve: Serve, trap: Trap
) -> None:
    scene = serve(Point("before", place), resend=resend)
    filled(scene)
    trap.arm(deaths=deaths)
    ask_for_statistics(scene)
    scene.survives()


@resends
@pytest.mark.parametrize(
    "point",
    [Point("before", f"{NAMESPACE}.write"), Point("before", "vswap.store.store:Store.compact")],
    ids=["passed on", "begun"],
)
def test_with_a_command_that_was_passed_on(
    point: Point, resend: bool, serve: Serve, trap: Trap
) -> None:
    scene = serve(point, resend=resend)
    filled(scene)
    trap.arm()
    assert scene.give("compact")[0] == errno.ECANCELED
    scene.survives()


@resends
def test_a_read_of_the_disk_that_lay_in_a_buffer_is_answered_and_forgotten(
    resend: bool, serve: Serve, trap: Trap, backing: Path
) -> None:
    scene = serve(on_received(Opcode.READ), resend=resend, backing=str(backing))
    on_disk(scene)
    trap.arm()
    scene.read(1000, 3)
    scene.settle()
    scene.stats()  # and so what was answered has been noted
    kill_worker(scene)  # while nobody wants anything
    stats = scene.stats()
    assert (stats["worker_restarts"], stats["parked"], stats["late_replies"]) == (2, 0, 0)
    scene.survives()


@resends
def test_a_command_that_is_cancelled_is_not_done_all_the_same(
    resend: bool, serve: Serve, trap: Trap
) -> None:
    """It was received, and nobody has begun with it."""
    scene = serve(on_received(Opcode.WRITE), resend=resend, memory_limit=48 * MIB)
    trap.arm()
    code, _ = scene.give("memory_limit 32M")
    expected = {0: 32 * MIB, errno.ECANCELED: 48 * MIB}
    assert scene.survives()["mem_limit"] == expected[code]


def test_a_file_that_was_opened_before_is_read_to_its_end_after(serve: Serve) -> None:
    scene = serve()
    with (
        (scene.device.mount / "stats.json").open("rb", buffering=0) as unread,
        (scene.device.mount / "stats.json").open("rb", buffering=0) as half,
        (scene.device.mount / "stats.json").open("rb", buffering=0) as whole,
    ):
        half.read(100)
        assert json.loads(whole.read(1 << 20))["worker_restarts"] == 0
        kill_worker(scene)
        assert json.loads(unread.readall())["worker_restarts"] == 1
        assert whole.read(1 << 20) == b""
        assert errno_of(lambda: half.read(1 << 20)) == errno.ESTALE
    scene.survives()


# --- What was set at run time ------------------------------------------------------------


def test_a_backing_that_was_attached_later_is_there_after(serve: Serve, backing: Path) -> None:
    scene = serve()
    scene.done(f"backing attach {backing}")
    on_disk(scene)
    kill_worker(scene)
    scene.read_all()
    stats = scene.stats()
    assert (stats["backing"], stats["backing_state"]) == (str(backing), "attached")
    assert stats["backing_pages"] == 1024
    scene.write(1024, noise(256, 1))
    assert scene.done("writeback huge").endswith(" pages written back\n")
    assert scene.stats()["backing_pages"] == 1280
    kill_worker(scene)
    assert scene.stats()["backing_pages"] == 1280
    scene.survives()


ATTACHING: dict[str, tuple[Point, bool]] = {
    "it is not kept": (Point("before", "vswapd.office:Office.open_backing"), False),
    "it is kept": (Point("after", "vswapd.office:Office.open_backing"), True),
    "it is attached": (Point("after", "vswap.store.disk:Disk.attach"), True),
}


@pytest.mark.parametrize("where", ATTACHING)
def test_in_the_middle_of_attaching(where: str, serve: Serve, trap: Trap, backing: Path) -> None:
    point, attached = ATTACHING[where]
    scene = serve(point)
    scene.write(0, noise(256))
    trap.arm()
    assert scene.give(f"backing attach {backing}")[0] == errno.ECANCELED
    scene.settle()
    assert scene.stats()["backing_state"] == ("attached" if attached else "none")
    if not attached:
        scene.done(f"backing attach {backing}")
    assert scene.done("writeback huge") == "256 pages written back\n"
    scene.survives()


def test_a_limit_that_was_set_later_is_in_force_after(serve: Serve) -> None:
    scene = serve(memory_limit=48 * MIB)
    scene.done("memory_limit 16M")
    kill_worker(scene)
    assert scene.stats()["mem_limit"] == 16 * MIB
    fill_up(scene)
    scene.done("memory_limit none")
    kill_worker(scene)
    scene.write(SIZE // 2 // PAGE, noise(LARGE))
    assert scene.survives(settled={"failed_writes"})["mem_limit"] == 0

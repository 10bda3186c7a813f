"""What systemd is told and keeps: a datagram socket stands for it, a shell for what it starts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from descriptor_support import open_descriptors

import vswap
import vswapd
from vswapd.held import Record
from vswapd.sdnotify import Keeper, read_record, take_listen_fds

if TYPE_CHECKING:
    from daemon.conftest import Systemd

SECONDS = 10
RECORD = Record('{"name": "m"}', "/mnt/m")
SOURCES = [str(Path(package.__path__[0]).parent) for package in (vswap, vswapd)]


@pytest.fixture
def keeper(systemd: Systemd, address: str) -> Iterator[Keeper]:
    made = Keeper(address)
    yield made
    if made.record_fd is not None:
        os.close(made.record_fd)


@pytest.fixture
def memfd() -> Iterator[int]:
    fd = os.memfd_create("test")
    yield fd
    os.close(fd)


# --- Telling ---------------------------------------------------------------------------


def test_assignments_are_one_message(keeper: Keeper, systemd: Systemd) -> None:
    keeper.tell("READY=1", "MAINPID=4711")
    assert systemd.hear() == [["READY=1", "MAINPID=4711"]]


def test_an_abstract_address_begins_with_an_at_sign() -> None:
    name = f"vswap-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(f"\0{name}")
        Keeper(f"@{name}").tell("READY=1")
        assert end.recv(100) == b"READY=1"


@pytest.mark.parametrize("nowhere", [None, ""])
def test_without_systemd_nothing_happens(nowhere: str | None, memfd: int) -> None:
    keeper = Keeper(nowhere)
    before = open_descriptors()
    keeper.tell("READY=1")
    keeper.store("fuse", memfd)
    keeper.remove("fuse")
    keeper.record(RECORD)
    assert open_descriptors() == before


def test_a_systemd_that_is_gone_is_no_error(
    keeper: Keeper, systemd: Systemd, memfd: int, caplog: pytest.LogCaptureFixture
) -> None:
    systemd.end.close()
    keeper.store("fuse", memfd)
    assert "systemd cannot be told FDSTORE=1" in caplog.text


# --- Descriptors -----------------------------------------------------------------------


def test_a_descriptor_that_is_stored_is_the_same_file(
    keeper: Keeper, systemd: Systemd, memfd: int
) -> None:
    keeper.store("state0", memfd)
    (lines,) = systemd.hear()
    assert sorted(lines) == ["FDNAME=vswap-state0", "FDPOLL=0", "FDSTORE=1"]
    (kept,) = systemd.named("vswap-state0")
    assert os.fstat(kept).st_ino == os.fstat(memfd).st_ino


def test_a_descriptor_is_removed_by_its_name(keeper: Keeper, systemd: Systemd, memfd: int) -> None:
    other = os.memfd_create("other")
    keeper.store("backing", memfd)
    keeper.store("fuse", other)
    keeper.remove("backing")
    systemd.hear()
    assert systemd.names() == ["vswap-fuse"]
    os.close(other)


# --- The record ------------------------------------------------------------------------


def kept_record(systemd: Systemd) -> int:
    """The one memfd that systemd has for it."""
    systemd.hear()
    (kept,) = systemd.named("vswap-record")
    return kept


def test_a_record_is_stored_once_and_then_written_on(keeper: Keeper, systemd: Systemd) -> None:
    keeper.record(RECORD)
    kept = kept_record(systemd)
    assert read_record(kept) == RECORD
    for restarts in range(1, 4):
        changed = replace(RECORD, restarts=restarts)
        keeper.record(changed)
        assert read_record(kept) == changed
    assert systemd.hear() == []


def test_what_has_not_changed_is_not_written_again(keeper: Keeper, systemd: Systemd) -> None:
    keeper.record(RECORD)
    kept = kept_record(systemd)
    size = os.fstat(kept).st_size
    keeper.record(replace(RECORD))
    assert os.fstat(kept).st_size == size


FIRST, LAST = RECORD, replace(RECORD, restarts=7)


PLACE = 64 << 10


def put(memfd: int, *records: str) -> None:
    """Write records into their two places."""
    for at, record in enumerate(records):
        os.pwrite(memfd, record.encode(), at * PLACE)


@pytest.mark.parametrize(
    ("records", "found"),
    [
        pytest.param([f"1 {FIRST.to_json()}\n"], FIRST, id="one"),
        pytest.param([f"1 {FIRST.to_json()}\n", f"2 {LAST.to_json()}\n"], LAST, id="the later"),
        pytest.param([f"9 {LAST.to_json()}\n", f"8 {FIRST.to_json()}\n"], LAST, id="not by place"),
        pytest.param([f"10 {LAST.to_json()}\n", f"9 {FIRST.to_json()}\n"], LAST, id="by number"),
        pytest.param([f"1 {FIRST.to_json()}\n", f"2 {LAST.to_json()[:20]}"], FIRST, id="cut off"),
        pytest.param(["1 ", f"2 {LAST.to_json()}\n"], LAST, id="the other is cut off"),
        pytest.param(
            [f"1 {FIRST.to_json()}\n", f"2 {LAST.to_json()}{LAST.to_json()[-9:]}\n"],
            FIRST,
            id="over a longer one",
        ),
    ],
)
def test_the_later_whole_record_counts(records: list[str], found: Record, memfd: int) -> None:
    put(memfd, *records)
    assert read_record(memfd) == found


@pytest.mark.parametrize("content", ["", FIRST.to_json(), "1 {", "\n", "1 {}\n", "no record\n"])
def test_where_there_is_no_record_is_an_error(content: str, memfd: int) -> None:
    put(memfd, content)
    with pytest.raises(ValueError, match="no record was kept"):
        read_record(memfd)


def test_a_record_takes_no_more_room_for_being_written_often(
    keeper: Keeper, systemd: Systemd
) -> None:
    keeper.record(FIRST)
    kept = kept_record(systemd)
    for restarts in range(100):
        keeper.record(replace(FIRST, restarts=restarts))
    assert read_record(kept).restarts == 99
    assert os.fstat(kept).st_size < 2 * PLACE


def test_who_goes_on_writes_to_the_record_that_is_there(
    keeper: Keeper, systemd: Systemd, address: str
) -> None:
    """Or it is left to chance which of two the next one finds."""
    keeper.record(FIRST)
    kept = kept_record(systemd)
    successor = Keeper(address)
    assert keeper.record_fd is not None
    successor.adopt(keeper.record_fd)
    successor.record(LAST)
    assert read_record(kept) == LAST
    assert kept_record(systemd) == kept


def test_a_record_that_systemd_has_forgotten_is_stored_again(
    keeper: Keeper, systemd: Systemd, address: str
) -> None:
    """As it does when a unit has failed although its daemon lives."""
    keeper.record(FIRST)
    systemd.hear()
    systemd.remove("vswap-record")
    successor = Keeper(address)
    assert keeper.record_fd is not None
    successor.adopt(keeper.record_fd)
    successor.record(LAST)
    assert read_record(kept_record(systemd)) == LAST


# --- What was kept for this process ----------------------------------------------------

CODE = """
import os
from vswapd.sdnotify import take_listen_fds
for name, fd in take_listen_fds(os.environ):
    print(name, fd, os.pread(fd, 100, 0).decode(), os.get_inheritable(fd))
print(sorted(name for name in os.environ if name.startswith("LISTEN_")))
print(take_listen_fds(os.environ))
"""


def started_with(listen_pid: str, names: str, contents: list[str]) -> list[str]:
    """What a process says that is started as systemd does, with these memfds from 3 on."""
    fds = []
    for content in contents:
        fds.append(os.memfd_create("test"))
        os.write(fds[-1], content.encode())
    high = [os.dup2(fd, 100 + number) for number, fd in enumerate(fds)]
    moves = " ".join(f"{3 + number}<&{fd}" for number, fd in enumerate(high))
    script = f'exec {moves}; LISTEN_PID={listen_pid} exec "$0" -c "$1"'
    try:
        done = subprocess.run(
            ["bash", "-c", script, sys.executable, CODE],
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(SOURCES),
                "LISTEN_FDS": str(len(fds)),
                "LISTEN_FDNAMES": names,
            },
            pass_fds=high,
            capture_output=True,
            text=True,
            timeout=SECONDS * 3,
            check=True,
        )
    finally:
        for fd in (*fds, *high):
            os.close(fd)
    return done.stdout.splitlines()


def test_descriptors_are_taken_by_their_names() -> None:
    said = started_with("$$", "vswap-state0:vswap-fuse:vswap-record", ["zero", "one", "two"])
    assert said == [
        "state0 3 zero False",
        "fuse 4 one False",
        "record 5 two False",
        "[]",
        "[]",
    ]


def test_descriptors_of_others_are_left_alone() -> None:
    said = started_with("$$", "stored:vswap-fuse:http", ["zero", "one", "two"])
    assert said == ["fuse 4 one False", "[]", "[]"]


def test_what_is_for_another_process_is_not_taken() -> None:
    """A shell that started us was given them, and the variables are inherited."""
    assert started_with("$PPID", "vswap-state0", ["zero"]) == ["[]", "[]"]


def test_without_systemd_there_is_nothing() -> None:
    assert take_listen_fds({"PATH": "/bin"}) == []


@pytest.mark.parametrize("count", ["", "many", "-1", "0"])
def test_a_count_that_is_none_is_nothing(count: str) -> None:
    environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count, "LISTEN_FDNAMES": "vswap-a"}
    assert take_listen_fds(environment) == []
    assert environment == {}


def test_of_one_name_the_newest_counts_which_systemd_hands_out_first() -> None:
    said = started_with("$$", "vswap-fuse:vswap-state0:vswap-fuse", ["new", "zero", "old"])
    assert said == ["fuse 3 new False", "state0 4 zero False", "[]", "[]"]

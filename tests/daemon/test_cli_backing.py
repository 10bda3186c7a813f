"""A device's backing on the command line: the file that is made, and `vswap backing`.

No daemon is started: what it would answer is given by the tests.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from vswap.errors import UserError
from vswap.store import backing_make
from vswap.store.backing_file import FileBacking
from vswap.store.backing_make import LABEL_SIZE, make_file
from vswapd import mounts
from vswapd.cli import backing, backing_file, bringup, daemon, drain, main, place, up
from vswapd.cli.bar import page_bar
from vswapd.cli.interrupt import Interrupts, Undo, interrupts
from vswapd.config import Settings
from vswapd.mounts import Device

MIB = 1 << 20
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Captured = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def interruptible(kept_signals: None) -> None:
    """Ctrl-C is heeded, whoever has started the tests."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: Patch) -> Path:
    """The working directory, on a file system that will do."""
    probe = tmp_path / "probe"
    probe.touch()
    try:
        os.close(os.open(probe, os.O_RDWR | os.O_DIRECT))
        backing_make.check_path(str(probe))
    except (OSError, UserError) as error:
        pytest.skip(f"the temporary directory cannot hold a backing: {error}")
    probe.unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def interrupted(monkeypatch: Patch) -> None:
    """Ctrl-C comes when a MiB of a file has been made."""
    fill = backing_make.fill

    def fill_and_interrupt(fd: int, start: int, end: int, *progress: Callable[[int], None]) -> None:
        fill(fd, start, min(end, start + MIB), *progress)
        if progress:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(backing_make, "fill", fill_and_interrupt)


# ---------------------------------------------------------------- options of `run` and `up`


@pytest.fixture
def served(disk: Path, monkeypatch: Patch) -> list[dict[str, Any]]:
    """The settings that `run` becomes a worker with."""
    found: list[dict[str, Any]] = []

    def become(_program: str, command: list[str], _environment: dict[str, str]) -> None:
        handlers = [signal.getsignal(number) for number in NUMBERS]
        found.append({**json.loads(command[-1]), "handlers": handlers})

    monkeypatch.setattr(place, "check_fuse", lambda: None)
    monkeypatch.setattr(os, "execve", become)
    (disk / disk.name).mkdir()  # a device is called as it, and no person's is
    return found


def run_with(*options: str) -> int:
    return main(["run", "--mount", Path.cwd().name, "--size", "3M", *options])


ALL = "which is all that this device could use"

BAD_OPTIONS = [
    (["--backing-size", "1G"], "backing-size is nothing without backing; name its file too"),
    (["--writeback-limit", "1G"], "writeback-limit is nothing without backing; name its file too"),
    (
        ["--writeback-limit", "none"],
        "writeback-limit is nothing without backing; name its file too",
    ),
    (["--backing", ""], "backing '' is no file; name one"),
    (["--backing"], "Option '--backing' requires an argument (`vswap --help` tells"),
    (["--backing", "b", "--backing-size", "x"], "backing-size 'x' is not a size; write it like"),
    (["--backing", "b", "--backing-size", "0"], "backing-size must be more than zero, not 0"),
    (["--backing", "b", "--writeback-limit", "x"], "writeback-limit 'x' is not a size; write it"),
    (["--backing", "b", "--writeback-limit", "0"], "writeback-limit must be more than zero, not 0"),
    (["--backing", "b", "--writeback-limit", "-1"], "writeback-limit must be more than zero, not"),
    (
        ["--backing", "b", "--writeback-limit", "16385E"],
        "writeback-limit must be from 0 to 4611686018427387903 units of 4 KiB, not ",
    ),
    (["--backing", "/nosuch/b"], "/nosuch/b cannot be made: No such file or directory"),
    (["--backing", "/dev/nosuch"], "/dev/nosuch is on "),
    (["--backing", "/dev/null"], "/dev/null is neither a regular file nor a block device; name"),
    (["--backing", "{disk}"], "{disk} is neither a regular file nor a block device; name one"),
    (
        ["--backing", "{disk}/{disk.name}/b"],
        "backing '{disk}/{disk.name}/b' lies at the mount point, which hides",
    ),
    (["--backing", "open"], "{disk}/open can be read or written by other users; `chmod 600"),
    (["--backing", "small", "--backing-size", "3M"], "{disk}/small is too small: it has 3145728 "),
    (["--backing", "link"], "{disk}/link is a symbolic link; name the file itself: {disk}/small"),
    (["--backing", "full"], "{disk}/full holds something else; vswap does not overwrite it"),
    (["--backing", "held"], "{disk}/held is used by another device"),
    (["--backing", "b", "--size", "16T"], "{disk}/b needs 16777217 MiB, and its file system has"),
    (
        ["--backing", "b", "--backing-size", "77M"],
        f"backing-size must be at most 76M, {ALL}, not 80740352 bytes",
    ),
    (["--backing", "b", "--backing-size", "1000000T"], "backing-size must be at most 76M, "),
]


@pytest.mark.parametrize(("options", "reason"), BAD_OPTIONS, ids=str)
def test_bad_options_get_one_line_and_nothing_is_made(
    options: list[str], reason: str, served: list[object], disk: Path, capsys: Captured
) -> None:
    for name in ("open", "small", "full", "held"):
        make_file(name, 2 * MIB)
    (disk / "open").chmod(0o640)
    (disk / "link").symlink_to("small")
    with (disk / "full").open("r+b") as file:
        file.write(b"precious")
    before = sorted(disk.iterdir())
    held = os.open("held", os.O_RDWR)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert run_with(*(option.format(disk=disk) for option in options)) == 2
    finally:
        os.close(held)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"vswap: {reason.format(disk=disk)}")
    assert said.err.count("\n") == 1
    assert sorted(disk.iterdir()) == before
    assert not served


@pytest.mark.parametrize(
    ("options", "size"), [([], 3 * MIB), (["--backing-size", "1.5M"], 2 * MIB)]
)
def test_run_makes_the_file_that_is_not_there(
    options: list[str], size: int, served: list[dict[str, Any]], disk: Path, capsys: Captured
) -> None:
    assert run_with("--backing", "sub/../b c", *options) == 2
    (disk / "sub").mkdir()
    capsys.readouterr()
    before = [signal.getsignal(number) for number in NUMBERS]
    assert run_with("--backing", "sub/../b c", *options) == 0
    assert (disk / "b c").stat().st_size == LABEL_SIZE + size
    (settings,) = served
    assert settings["backing"] == f"{disk}/sub/../b c"
    assert settings["writeback_limit"] is None
    assert settings["handlers"] == before
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("limit", "units"), [("none", 0), ("1", 1), ("4096", 1), ("4097", 2), ("1G", 1 << 18)]
)
def test_the_writeback_limit_is_in_units(
    limit: str, units: int, served: list[dict[str, Any]]
) -> None:
    assert run_with("--backing", "b", "--writeback-limit", limit) == 0
    assert served[0]["writeback_limit"] == units


def test_a_file_that_is_there_is_used_as_it_is(served: list[dict[str, Any]], disk: Path) -> None:
    make_file("b", 4 * MIB)
    inode = (disk / "b").stat().st_ino
    assert run_with("--backing", "b", "--backing-size", "4M") == 0
    assert served[0]["backing"] == f"{disk}/b"
    assert (disk / "b").stat().st_ino == inode


@pytest.mark.usefixtures("interrupted")
def test_ctrl_c_while_run_makes_the_file(
    served: list[object], disk: Path, capsys: Captured
) -> None:
    assert run_with("--backing", "b") == 130
    assert capsys.readouterr() == ("", f"vswap: interrupted; {disk}/b is removed again\n")
    assert not (disk / "b").exists()
    assert not served


def test_handlers_are_as_before_only_if_all_went_well() -> None:
    before = [signal.getsignal(number) for number in NUMBERS]
    with interrupts(last=False):
        assert [signal.getsignal(number) for number in NUMBERS] != before
    assert [signal.getsignal(number) for number in NUMBERS] == before
    with pytest.raises(KeyboardInterrupt), interrupts(last=False):
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def failing_up(disk: Path, monkeypatch: Patch) -> list[int]:
    """`up` fails when the daemon is to start; the sizes that the backing had then."""
    sizes: list[int] = []

    def start(settings: Settings, _signals: Interrupts, _undo: Undo) -> Device:
        sizes.append(Path(settings.backing or "").stat().st_size)
        raise UserError("the daemon does not start")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(up, "_start", start)
    monkeypatch.setattr(bringup, "check_free_loop", lambda: None)
    monkeypatch.setattr(place, "check_fuse", lambda: None)
    monkeypatch.setattr(daemon, "log_path", lambda name: disk / "run" / f"{name}.log")
    (disk / "swap7").mkdir()
    return sizes


UP = ["up", "--mount", "swap7", "--size", "3M", "--backing", "b"]


def test_up_removes_a_file_that_it_made_when_it_fails(
    failing_up: list[int], disk: Path, capsys: Captured
) -> None:
    assert main(UP) == 2
    assert failing_up == [LABEL_SIZE + 3 * MIB]
    assert capsys.readouterr() == ("", "vswap: the daemon does not start\n")
    assert [path.name for path in disk.iterdir()] == ["swap7"]


def test_up_leaves_a_file_that_was_there(failing_up: list[int], disk: Path) -> None:
    make_file("b", 2 * MIB)
    assert main(UP) == 2
    assert failing_up == [LABEL_SIZE + 2 * MIB] == [(disk / "b").stat().st_size]


def test_up_says_what_is_wrong_with_a_file_before_anything_else(
    failing_up: list[int], disk: Path, capsys: Captured
) -> None:
    (disk / "b").touch(0o600)
    assert main(UP) == 2
    assert capsys.readouterr().err.startswith(f"vswap: {disk}/b is too small")
    assert not failing_up
    assert not (disk / "run").exists()


@pytest.mark.usefixtures("interrupted")
def test_ctrl_c_while_up_makes_the_file(
    failing_up: list[int], disk: Path, capsys: Captured
) -> None:
    assert main(UP) == 130
    assert capsys.readouterr() == ("", "vswap: interrupted; everything undone\n")
    assert not failing_up
    assert [path.name for path in disk.iterdir()] == ["swap7"]


def test_what_is_made_is_shown_on_a_terminal(disk: Path, monkeypatch: Patch) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(backing_file, "_DRAW_SECONDS", 0)
    monkeypatch.setattr("vswapd.cli.bar.bar", lambda _title, _total: nullcontext(drawn.append))
    backing_file.make_missing(f"{disk}/b", 3 * MIB, Undo(Interrupts()))
    assert drawn == [MIB, 2 * MIB, 3 * MIB]


def test_but_not_drawn_for_each_mib(disk: Path, monkeypatch: Patch) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(backing_file, "_DRAW_SECONDS", 1000)
    monkeypatch.setattr("vswapd.cli.bar.bar", lambda _title, _total: nullcontext(drawn.append))
    backing_file.make_missing(f"{disk}/b", 3 * MIB, Undo(Interrupts()))
    assert drawn == [MIB]


def test_what_a_daemon_has_by_now_is_not_removed(disk: Path) -> None:
    path = f"{disk}/b"
    with Undo(Interrupts()) as undo:
        backing_file.make_missing(path, MIB, undo)
        theirs = FileBacking.open(path)
    assert Path(path).exists()
    theirs.close()
    with Undo(Interrupts()) as undo:
        backing_file.make_missing(path, MIB, undo)  # it is there, so it is not ours
    assert Path(path).exists()


def test_nothing_on_fuse_is_touched(disk: Path, monkeypatch: Patch) -> None:
    table = disk / "mountinfo"
    table.write_text(f"1 0 0:31 / {disk}/f rw - fuse.vswap swap0 rw\n")
    monkeypatch.setattr(backing_make, "_MOUNTINFO", table)
    monkeypatch.setattr(os.path, "lexists", lambda _path: pytest.fail("it was touched"))
    with pytest.raises(UserError, match=r"is on fuse\.vswap, served by a process that may"):
        backing_file.check_backing(f"{disk}/f/swap", None)


# ---------------------------------------------------------------- a daemon


class Daemon:
    """What a daemon answers: a result or an error to each command, and its statistics in turn."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.answers: dict[str, str | BaseException] = {"backing status": "no backing is attached"}
        self.looks: list[dict[str, Any] | BaseException] = []
        """The last is given again and again."""

    def write_ctl(self, _device: object, command: str, alive: Callable[[], object]) -> str:
        self.told.append(command)
        alive()
        answer = self.answers[command]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def read_stats(self, _device: object) -> dict[str, Any]:
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(look, BaseException):
            raise look
        return look


def look(state: str, pages: int = 0, result: str = "", path: str = "/b") -> dict[str, Any]:
    """Some of its statistics."""
    return {
        "size": 16 * MIB,
        "backing": "" if state == "none" else path,
        "backing_state": state,
        "backing_pages": pages,
        "detach_result": result,
    }


NONE = look("none")
GONE = UserError("the daemon of swap0 is gone; `vswap down swap0` clears the rest")


@pytest.fixture
def fake(disk: Path, monkeypatch: Patch) -> Daemon:
    """The daemon of the only device that there seems to be."""
    point = disk / "swap0"
    point.mkdir()
    (disk / "mountinfo").write_text(f"58 2 0:57 / {point} rw - fuse.vswap swap0 rw,user_id=0\n")
    monkeypatch.setattr(mounts, "_MOUNTINFO", disk / "mountinfo")
    fake = Daemon()
    for module in (backing, drain):
        monkeypatch.setattr(module, "write_ctl", fake.write_ctl)
        monkeypatch.setattr(module, "read_stats", fake.read_stats)
    monkeypatch.setattr(drain, "_POLL_SECONDS", 0)
    fake.looks = [NONE]
    return fake


BAD_INPUT = [
    ([], "Missing command (`vswap backing --help` tells more)"),
    (["give"], "No such command 'give' (`vswap backing --help` tells more)"),
    (["attach"], "Missing argument 'FILE' (`vswap backing attach --help` tells more)"),
    (["attach", ""], "backing '' is no file; name one"),
    (["attach", "a", "b"], "Got unexpected extra argument (b) (`vswap backing attach --help`"),
    (["attach", "b"], "{disk}/b does not exist; --size SIZE makes it"),
    (["attach", "/nosuch/b"], "/nosuch/b does not exist; --size SIZE makes it"),
    (["attach", "/dev/nosuch"], "/dev/nosuch is on "),
    (["attach", "a  b"], "{disk}/a b does not exist; --size SIZE makes it"),
    (["attach", "a\nb", "--size", "1M"], "'{disk}/a\\nb' has a line break; rename it, or give it"),
    (["attach", "b\n"], "'{disk}/b\\n' has a line break; rename it, or give it to `vswap up`"),
    (["attach", "b\udcff"], "'{disk}/b\\udcff' is not UTF-8; rename it, or give it to `vswap up`"),
    (["attach", "b", "--size", "x"], "size 'x' is not a size; write it like 512M or 1.5G"),
    (["attach", "b", "--size", "0"], "size must be more than zero, not 0"),
    (["attach", "b", "--size", "129M"], f"size must be at most 128M, {ALL}, not 135266304 bytes"),
    (["attach", "/nosuch/b", "--size", "1M"], "/nosuch/b cannot be made: No such file or"),
    (["attach", "/dev/null", "--size", "1M"], "/dev/null is neither a regular file nor a block"),
    (["attach", "b", "--device", "x"], "no device x; there is: swap0 at {disk}/swap0"),
    (["grow"], "Missing argument 'SIZE' (`vswap backing grow --help` tells more)"),
    (["grow", "x"], "size 'x' is not a size; write it like 512M or 1.5G"),
    (["grow", "-1G"], "No such option '-1'"),
    (["grow", "0"], "size must be more than zero, not 0"),
    (["grow", "1G", "--device", "x"], "no device x; there is: swap0 at {disk}/swap0"),
    (["detach", "b"], "Got unexpected extra argument (b) (`vswap backing detach --help` tells"),
    (["detach"], "no backing is attached to swap0"),
    (["detach", "--device", "x"], "no device x; there is: swap0 at {disk}/swap0"),
]


@pytest.mark.parametrize(("args", "reason"), BAD_INPUT, ids=str)
def test_bad_input_gets_one_line_and_exit_code_2(
    args: list[str], reason: str, fake: Daemon, disk: Path, capsys: Captured
) -> None:
    before = sorted(disk.iterdir())
    assert main(["backing", *args]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"vswap: {reason.format(disk=disk)}")
    assert said.err.count("\n") == 1
    assert set(fake.told) <= {"backing status"}
    assert sorted(disk.iterdir()) == before


def test_help_has_examples(capsys: Captured) -> None:
    assert main(["backing", "--help"]) == 0
    assert "Examples:\n    vswap backing attach /var/lib/vswap.img" in capsys.readouterr().out


# ---------------------------------------------------------------- attach and grow


@pytest.mark.parametrize("name", ["b 1", "b  1", " b ", "b\t1"])
def test_attach_tells_the_whole_path(name: str, fake: Daemon, disk: Path, capsys: Captured) -> None:
    make_file(name, MIB)
    fake.answers[f"backing attach {disk}/{name}"] = "it is attached"
    assert main(["backing", "attach", name]) == 0
    assert capsys.readouterr() == ("it is attached\n", "")


def test_attach_makes_a_file(fake: Daemon, disk: Path, capsys: Captured) -> None:
    fake.answers[f"backing attach {disk}/b"] = "it is attached"
    assert main(["backing", "attach", "b", "--size", "2M", "--device", "swap0"]) == 0
    assert capsys.readouterr() == ("it is attached\n", "")
    assert (disk / "b").stat().st_size == LABEL_SIZE + 2 * MIB
    assert main(["backing", "attach", "b", "--size", "2M"]) == 0
    assert main(["backing", "attach", "b", "--size", "3M"]) == 2
    assert "b is too small" in capsys.readouterr().err


def test_nothing_is_made_beside_another(fake: Daemon, disk: Path, capsys: Captured) -> None:
    fake.looks = [look("resting")]
    assert main(["backing", "attach", "b", "--size", "1M"]) == 2
    assert capsys.readouterr() == ("", "vswap: /b is attached already; detach it first\n")
    assert not (disk / "b").exists()
    assert not fake.told


@pytest.mark.parametrize("refusal", [UserError("it will not do"), GONE])
def test_a_file_that_was_made_in_vain_is_removed(
    refusal: UserError, fake: Daemon, disk: Path, capsys: Captured
) -> None:
    make_file("old", MIB)
    for name in ("b", "old"):
        fake.answers[f"backing attach {disk}/{name}"] = refusal
    for name in ("b", "old"):
        assert main(["backing", "attach", name, "--size", "1M"]) == 2
        assert capsys.readouterr() == ("", f"vswap: {refusal}\n")
    assert not (disk / "b").exists()
    assert (disk / "old").exists()


def test_who_may_tell_the_daemon_nothing_makes_no_file(
    fake: Daemon, disk: Path, monkeypatch: Patch, capsys: Captured
) -> None:
    monkeypatch.setattr(backing, "make_missing", lambda *_: pytest.fail("it was made"))
    fake.answers["backing status"] = UserError("the daemon of swap0 cannot be asked: denied")
    assert main(["backing", "attach", "b", "--size", "1M"]) == 2
    assert capsys.readouterr() == ("", "vswap: the daemon of swap0 cannot be asked: denied\n")


@pytest.mark.usefixtures("interrupted")
def test_ctrl_c_while_attach_makes_a_file(fake: Daemon, disk: Path, capsys: Captured) -> None:
    assert main(["backing", "attach", "b", "--size", "3M"]) == 130
    assert capsys.readouterr() == ("", "vswap: interrupted; nothing is attached\n")
    assert not (disk / "b").exists()
    assert fake.told == ["backing status"]


def test_ctrl_c_while_it_is_attached(fake: Daemon, disk: Path, capsys: Captured) -> None:
    path = f"{disk}/b"
    fake.looks = [NONE, NONE, NONE, look("attached", path=path)]
    fake.answers[f"backing attach {path}"] = KeyboardInterrupt()
    assert main(["backing", "attach", "b", "--size", "1M"]) == 130
    assert capsys.readouterr().err == f"vswap: interrupted; {path} is attached all the same\n"


def test_grow_tells_bytes(fake: Daemon, capsys: Captured) -> None:
    fake.answers = {"backing grow 1610612736": "it is larger"}
    assert main(["backing", "grow", "1.5G"]) == 0
    assert capsys.readouterr() == ("it is larger\n", "")


def test_ctrl_c_while_it_grows(fake: Daemon, capsys: Captured) -> None:
    fake.answers = {"backing grow 4096": KeyboardInterrupt()}
    assert main(["backing", "grow", "4096"]) == 130
    reason = "interrupted; the daemon goes on growing the backing"
    assert capsys.readouterr() == ("", f"vswap: {reason}\n")


def test_how_long_it_grows_is_shown_on_a_terminal(fake: Daemon, monkeypatch: Patch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("vswapd.cli.bar.ticker", lambda _title: nullcontext(drawn.append))
    fake.looks = [look("attached", path="/b")]
    fake.answers = {"backing grow 4096": "it is larger"}
    assert main(["backing", "grow", "4096"]) == 0
    assert drawn == ["/b"]


# ---------------------------------------------------------------- detach


def detach(fake: Daemon, *looks: dict[str, Any] | BaseException) -> int:
    """Take a backing with 100 pages away, of which these are the statistics in turn."""
    fake.looks = [look("attached", 100, "stopped"), look("attached", 100), *looks]
    fake.answers.setdefault("backing detach", "detaching")
    fake.answers.setdefault("backing stop", "stopped")
    return main(["backing", "detach"])


@pytest.mark.parametrize(
    "last",
    [
        look("none", result="detached"),
        look("attached", 0, "detached"),  # it has not let go yet
        look("attached", 0, "detached", "/another"),
    ],
)
def test_detach_waits_until_it_is_done(
    fake: Daemon, last: dict[str, Any], capsys: Captured
) -> None:
    begins = look("attached", 100)  # it has said that it begins, and will
    assert detach(fake, begins, look("detaching", 50), look("detaching"), last) == 0
    assert fake.told == ["backing detach"]
    assert capsys.readouterr() == (
        "/b is detached\n",
        "detaching /b: 100 pages to bring back\n",
    )


def test_detach_waits_for_one_that_was_begun(fake: Daemon, capsys: Captured) -> None:
    fake.looks = [look("detaching", 7), look("detaching", 3), look("none", result="detached")]
    assert main(["backing", "detach"]) == 0
    assert not fake.told
    assert capsys.readouterr().out == "/b is detached\n"


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        (
            look("attached", 40, "memory"),
            "40 pages are still on /b, and readable: memory is too short to go on; raise the limit "
            "(`vswap ctl memory_limit SIZE`) or free some, then `vswap backing detach` goes on",
        ),
        (
            look("resting", 1, "unreadable"),
            "1 page is still on /b: the disk does not give back what was written; the kernel's log "
            "may tell why, and `vswap backing detach` tries again",
        ),
        (
            look("attached", 40, "stopped"),
            "40 pages are still on /b, and readable: somebody has stopped it; "
            "`vswap backing detach` goes on",
        ),
        (GONE, str(GONE)),
    ],
)
def test_a_detaching_that_does_not_end_well(
    fake: Daemon, last: dict[str, Any] | BaseException, reason: str, capsys: Captured
) -> None:
    assert detach(fake, look("detaching", 50), last) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[-1] == f"vswap: {reason}"


def test_a_detaching_that_is_refused(fake: Daemon, capsys: Captured) -> None:
    fake.answers["backing detach"] = UserError("memory would not hold what is on /b")
    assert detach(fake) == 2
    assert capsys.readouterr() == ("", "vswap: memory would not hold what is on /b\n")


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_stops_it(number: int, fake: Daemon, monkeypatch: Patch, capsys: Captured) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: os.kill(os.getpid(), number))
    assert detach(fake, look("detaching", 50), look("attached", 30, "stopped")) == 130
    assert fake.told == ["backing detach", "backing stop"]
    assert capsys.readouterr().err.splitlines()[-1] == (
        "vswap: stopped; 30 pages are still on /b, and readable; `vswap backing detach` goes on"
    )


def test_a_signal_while_it_is_begun_stops_it_too(fake: Daemon, capsys: Captured) -> None:
    fake.answers["backing detach"] = KeyboardInterrupt()
    assert detach(fake, look("attached", 100, "stopped")) == 130
    assert fake.told == ["backing detach", "backing stop"]
    assert "stopped; 100 pages are still on /b" in capsys.readouterr().err


def test_a_signal_that_comes_too_late(fake: Daemon, monkeypatch: Patch, capsys: Captured) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: os.kill(os.getpid(), signal.SIGINT))
    assert detach(fake, look("detaching", 50), look("none", result="detached")) == 130
    reason = "vswap: interrupted, but /b was detached by then"
    assert capsys.readouterr().err.splitlines()[-1] == reason


def test_a_signal_and_then_no_daemon(fake: Daemon, monkeypatch: Patch, capsys: Captured) -> None:
    monkeypatch.setattr(time, "sleep", lambda _seconds: os.kill(os.getpid(), signal.SIGINT))
    fake.answers["backing stop"] = GONE
    assert detach(fake, look("detaching", 50)) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"vswap: {GONE}"


def test_progress_is_shown_on_a_terminal(fake: Daemon, monkeypatch: Patch) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("vswapd.cli.bar.page_bar", lambda _title, _total: nullcontext(drawn.append))
    more = look("detaching", 101)
    assert detach(fake, more, look("detaching", 50), look("none", result="detached")) == 0
    assert drawn == [0, 50]


def test_page_bar(monkeypatch: Patch, capsys: Captured) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # to rich, stderr is a terminal then
    monkeypatch.setenv("COLUMNS", "120")
    with page_bar("detaching /b", 64) as draw:
        draw(0)
        draw(48)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "detaching /b" in shown.err
    assert "48 of 64 pages" in shown.err


# ---------------------------------------------------------------- status


@pytest.mark.parametrize(
    ("state", "shown", "ratio"), [("attached", "b:20M", "1.00"), ("none", "-", "3.00")]
)
def test_status_shows_what_is_on_disk(
    state: str, shown: str, ratio: str, fake: Daemon, disk: Path, capsys: Captured
) -> None:
    stats = {"orig_data_size": 30 * MIB, "compr_data_size": 10 * MIB, "mem_used_total": 11 * MIB}
    more = {
        "backing": "/some/b",
        "backing_state": state,
        "backing_data_size": 20 * MIB,
        "zero_pages": 0,
        "size": 64 * MIB,
    }
    (disk / "swap0/stats.json").write_text(json.dumps({**stats, **more}))
    assert main(["status"]) == 0
    heading, row = (line.split() for line in capsys.readouterr().out.splitlines())
    found = dict(zip(heading, row, strict=True))
    assert (found["TOTAL"], found["BACKING"], found["RATIO"]) == ("11M", shown, ratio)

"""The commands: what bad input gets, and what each part does when things go wrong.

Nothing here takes a device down that somebody else has on this machine: `down` and `ctl`
are only ever given names that do not exist.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path

import click
import pytest

from vswap.errors import UserError
from vswapd import mounts, swapdev
from vswapd.cli import bringup, cgroups, ctl, daemon, down, main, place, swapoff
from vswapd.cli.bar import bar
from vswapd.cli.group import _vswap as root
from vswapd.cli.interrupt import Interrupts, StoppedError, Undo, interrupts
from vswapd.cli.status import serving, status_of
from vswapd.cli.text import table
from vswapd.config import Settings
from vswapd.mounts import Device
from vswapd.swapdev import SwapArea
from vswapd.tell import FindingsError, RefusedError
from vswapd.usage import COMMANDS

SOURCES = [str(Path(__file__).parents[2] / part) for part in ("", "daemon")]
MIB = 1 << 20


def vswap(*args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)}
    command = [sys.executable, "-W", "error", "-m", "vswapd", *args]
    return subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a script in the place of a program."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def stand(name: str, script: str) -> None:
        path = tmp_path / name
        path.write_text(script)
        path.chmod(0o755)

    return stand


@pytest.fixture
def signals(kept_signals: None) -> Iterator[Interrupts]:
    """Signals as a command handles them, and as they were afterwards."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with interrupts() as state:
        yield state


# ---------------------------------------------------------------- what bad input gets

UP_HELP = "(`vswap up --help` tells more)"

BAD_INPUT = [
    ([], "Missing command (`vswap --help` tells more)"),
    (["upp"], "No such command 'upp'"),
    (["up", "--xyzzy"], f"No such option '--xyzzy' {UP_HELP}"),
    (["up", "extra", "more"], f"Got unexpected extra argument (more) {UP_HELP}"),
    (
        ["up", "extra"],
        "no device 'extra' in /etc/vswap.toml or /etc/vswap.d/*.toml; there is: none",
    ),
    (["up", "--size", "0"], "size must be more than zero, not 0"),
    (["up", "--size", "-1G"], "size must be more than zero, not -1G"),
    (["up", "--size", "5"], "size must be a multiple of 4 KiB, and 5 bytes is not"),
    (["up", "--size", "17T"], "size must be at most 16 TiB, not 18691697672192 bytes"),
    (["up", "--size", "big"], "size 'big' is not a size; write it like 512M or 1.5G"),
    (["up", "--size", ""], "size '' is not a size; write it like 512M or 1.5G"),
    (["up", "--size", "1.5"], "size must be a whole number of bytes, and 1.5 is not"),
    (
        ["up", "--memory-limit", "8M", "--threads", "2"],
        "memory-limit must be at least 12M with this size and 2 threads, not 8388608 bytes",
    ),
    (["up", "--memory-limit", "x"], "memory-limit 'x' is not a size; write it like 512M or 1.5G"),
    (["up", "--codec", "lzo"], "unknown codec 'lzo'; choose one of lz4, zstd-fast, zstd, stored"),
    (["up", "--unit-pages", "3"], "unit-pages must be one of 1, 2, 4, 8, 16, not 3"),
    (["up", "--threads", "65"], "threads must be from 0 to 64, not 65"),
    (
        ["up", "--threads", "two"],
        f"Invalid value for '--threads': 'two' is not a valid integer {UP_HELP}",
    ),
    (["up", "--spin-us", "-1"], "spin-us must be from 0 to 10000, not -1"),
    (
        ["up", "--priority", "40000"],
        f"Invalid value for '--priority': 40000 is not in the range 0<=x<=32767 {UP_HELP}",
    ),
    (
        ["up", "--mount", ""],
        "mount point '' is no directory; leave --mount out for the default",
    ),
    (
        ["up", "--mount", "/"],
        "mounting on / would cover /run/vswap; choose another",
    ),
    (["run", "--mount", ""], "run needs --mount DIR, an empty directory"),
    (
        ["run", "--mount", "/nosuch/test-nowhere", "--size", "x"],
        "size 'x' is not a size; write it like",
    ),
    (
        ["run", "--mount", "/nosuch/test-nowhere"],
        "mount point /nosuch/test-nowhere does not exist; create it or choose another",
    ),
    (["run", "--mount", "/proc"], "/proc is in use, something else is mounted there; choose"),
    (["run", "--mount", sys.executable], "mount point "),
    (["ctl"], "Missing argument 'COMMAND...' (`vswap ctl --help` tells more)"),
]


@pytest.mark.parametrize(("args", "reason"), BAD_INPUT, ids=lambda value: " ".join(value)[:40])
def test_bad_input_gets_one_line_and_exit_code_2(args: list[str], reason: str) -> None:
    if args[0:1] == ["run"] and "x" not in args and not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("needs /dev/fuse")
    ended = vswap(*args)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"vswap: {reason}")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "args", [["down", "no-such"], ["status", "no-such"], ["ctl", "help", "--device", "no-such"]]
)
def test_unknown_device(args: list[str]) -> None:
    ended = vswap(*args)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr in {
        "vswap: no vswap device is here; `vswap up` makes one\n",
        f"vswap: no device no-such; there is: {_present()}\n",
    }


def _present() -> str:
    return ", ".join(f"{device.name} at {device.mount}" for device in mounts.devices())


def test_help_and_version() -> None:
    shown = vswap("--help")
    assert shown.returncode == 0
    assert "Examples:\n    vswap up --size 4G" in shown.stdout
    assert vswap("up", "--help").returncode == 0
    assert vswap("--version").stdout.startswith("vswap ")


def every(group: click.Group, *names: str) -> Iterator[tuple[str, ...]]:
    """The names of all commands, and of groups too, as they are typed."""
    yield names
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from every(command, *names, name)
        else:
            yield (*names, name)


@pytest.mark.parametrize("names", list(every(root)), ids=" ".join)
def test_the_help_of_every_command_has_examples(
    names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*names, "--help"]) == 0
    examples = capsys.readouterr().out.partition("Examples:\n")[2]
    assert f"vswap {' '.join(names)}".rstrip() in examples


def test_commands_start_without_what_they_do_not_need() -> None:
    code = (
        "import sys, vswapd.cli.group; "
        "print({'trio', 'pyfuse3', 'numpy', 'rich', 'lz4'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)}
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True
    )
    assert found.stdout == b"set()\n"


def test_up_needs_root(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["up"]) == 2
    reason = "up needs root; `vswap run --mount DIR` serves the file without"
    assert capsys.readouterr() == ("", f"vswap: {reason}\n")


def test_run_needs_a_directory_when_not_root(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["run"]) == 2
    reason = "run needs --mount DIR, an empty directory"
    assert capsys.readouterr() == ("", f"vswap: {reason}\n")


def test_up_needs_room_for_a_swap_header(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert main(["up", "--size", "36K"]) == 2
    reason = "size must be at least 40 KiB for swap, not 36864 bytes"
    assert capsys.readouterr() == ("", f"vswap: {reason}\n")


def test_no_dev_fuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "_FUSE", tmp_path / "fuse")
    with pytest.raises(UserError, match="fuse does not exist; load the kernel's module with"):
        place.check_fuse()
    (tmp_path / "fuse").touch()
    with pytest.raises(UserError, match="fuse does not exist; load the kernel's module with"):
        place.check_fuse()


def test_mount_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mountinfo").write_text("58 27 0:57 / /a/one rw - fuse.vswap one rw,user_id=0\n")
    monkeypatch.setattr(mounts, "_MOUNTINFO", tmp_path / "mountinfo")
    with pytest.raises(UserError) as caught:
        place.check_mount(Settings("one", "/a/one", MIB))
    assert str(caught.value) == "a daemon already serves /a/one; `vswap down one` stops it"
    with pytest.raises(UserError) as caught:
        place.check_mount(Settings("one", "/b/one", MIB))
    reason = "a device called one is at /a/one; mount this one at a directory of another name"
    assert str(caught.value) == reason


def test_an_error_of_the_system_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mounts, "_MOUNTINFO", Path("/nosuch/mountinfo"))
    assert main(["status"]) == 1
    reason = "[Errno 2] No such file or directory: '/nosuch/mountinfo'"
    assert capsys.readouterr() == ("", f"vswap: {reason}\n")


def test_a_reader_that_has_read_enough() -> None:
    command = f"{sys.executable} -m vswapd --help | true; echo ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)}
    ended = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, check=False
    )
    assert ended.stdout.strip() in {b"0", b"1"}
    assert ended.stderr == b""


# ---------------------------------------------------------------- own directories


def test_own_mount_points_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "vswap"
    monkeypatch.setattr(place, "RUN_DIRECTORY", directory)
    place.make_own_mount(str(directory / "swap0"))
    place.make_own_mount(str(directory / "swap1"))
    assert (directory / "swap0").stat().st_mode & 0o777 == 0o700
    place.remove_own_mount(str(directory / "swap0"))
    assert not (directory / "swap0").exists()
    place.remove_own_mount(str(directory / "swap1"))
    place.remove_own_mount(str(directory / "swap1"))
    assert not directory.exists()


def test_other_mount_points_stay(tmp_path: Path) -> None:
    place.make_own_mount(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
    place.remove_own_mount(str(tmp_path))
    assert tmp_path.exists()


# ---------------------------------------------------------------- starting the daemon

SAYS = "import os, sys; fd = int(sys.argv[2]); "


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], daemon.Daemon]]:
    """Start a daemon whose program is this Python code; ends with it, whatever it did."""
    log = tmp_path / "x.log"
    log.touch()
    with ExitStack() as undo:

        def begin(code: str) -> daemon.Daemon:
            started = daemon.start_daemon([sys.executable, "-c", SAYS + code], log)
            undo.callback(daemon.stop_daemon, started, "/nosuch/mount")
            return started

        yield begin


def test_ready(start: Callable[[str], daemon.Daemon]) -> None:
    daemon.wait_ready(start("os.write(fd, b'ready\\n'); sys.stdin.read(); os.close(fd)"))


def test_ready_in_pieces(start: Callable[[str], daemon.Daemon]) -> None:
    daemon.wait_ready(start("[os.write(fd, c.encode()) for c in 'ready\\n']"))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("os.write(fd, b'error no memory left\\n')", "no memory left"),
        ("os.close(fd)", "the daemon stopped before it was ready and said nothing"),
        ("os.write(fd, b'read'); sys.exit(3)", "the daemon stopped before it was ready"),
        ("os.write(fd, b'\\xff\\n'); sys.exit(3)", "the daemon stopped before it was ready"),
        ("print('hm', flush=True)", "the daemon stopped before it was ready; see {log}"),
        ("os.kill(os.getpid(), 9)", "the daemon stopped before it was ready"),
    ],
)
def test_not_ready(
    start: Callable[[str], daemon.Daemon], tmp_path: Path, code: str, reason: str
) -> None:
    with pytest.raises(UserError) as caught:
        daemon.wait_ready(start(code))
    assert str(caught.value).startswith(reason.format(log=tmp_path / "x.log"))


def test_end_is_noticed_though_a_child_holds_the_pipe(
    start: Callable[[str], daemon.Daemon], tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    held = os.open(fifo, os.O_RDWR)  # the child ends when nobody can write to it any more
    code = (
        f"import subprocess; subprocess.Popen(['cat'], stdin=open({str(fifo)!r}), pass_fds=[fd]); "
        "os._exit(1)"
    )
    try:
        with pytest.raises(UserError, match="the daemon stopped before it was ready"):
            daemon.wait_ready(start(code))
    finally:
        os.close(held)


def test_not_ready_in_time(start: Callable[[str], daemon.Daemon]) -> None:
    with pytest.raises(daemon.DiedError, match=r"was not ready within 0\.05 s and said nothing"):
        daemon.wait_ready(start("import signal; signal.pause()"), 0.05)


def test_daemon_has_nothing_of_ours(start: Callable[[str], daemon.Daemon], tmp_path: Path) -> None:
    code = (
        "print(os.getcwd(), os.getsid(0) == os.getpid(), os.environ['OPENBLAS_NUM_THREADS'], "
        "sorted(int(n) for n in os.listdir('/proc/self/fd') if os.path.exists(f'/dev/fd/{n}')) "
        "== [0, 1, 2, fd], os.readlink('/dev/fd/0'), flush=True); os.write(fd, b'ready\\n')"
    )
    daemon.wait_ready(start(code))
    assert (tmp_path / "x.log").read_text() == "/ True 1 True /dev/null\n"


def test_stop_kills_a_daemon_that_does_not_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "EXIT_SECONDS", 0.05)
    (tmp_path / "x.log").touch()
    code = (
        "import signal; signal.signal(15, signal.SIG_IGN); os.write(fd, b'ready\\n'); "
        "[signal.pause() for _ in iter(int, 1)]"
    )
    started = daemon.start_daemon([sys.executable, "-c", SAYS + code], tmp_path / "x.log")
    daemon.wait_ready(started)
    daemon.stop_daemon(started, "/nosuch/mount")
    assert started.process.returncode == -9


def test_relative_python_path_holds_in_another_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"daemon{os.pathsep}/abs")
    wanted = f"{Path.cwd()}/daemon{os.pathsep}/abs"
    assert daemon.daemon_environment()["PYTHONPATH"] == wanted


def test_log_is_removed_unless_it_tells_something(tmp_path: Path) -> None:
    log = tmp_path / "run/x.log"
    for error, text, stays in (
        (UserError("x"), "y", False),
        (daemon.DiedError("see it"), "", False),
        (daemon.DiedError("see it"), "y", True),
    ):
        with pytest.raises(UserError), daemon.locked_log(log, lambda: None):
            assert log.read_text() == ""
            assert log.stat().st_mode & 0o777 == 0o600
            log.write_text(text)
            raise error
        assert log.exists() == stays


def test_log_of_a_running_device_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("what it said")

    def check() -> None:
        raise UserError("it is there already")

    with pytest.raises(UserError, match="there already"), daemon.locked_log(log, check):
        pass
    assert log.read_text() == "what it said"


def test_two_ups_at_once(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    refused = pytest.raises(UserError, match="x is being brought up already; wait for it")
    with daemon.locked_log(log, lambda: None):
        with refused, daemon.locked_log(log, lambda: None):
            pass
        assert log.exists()


# ---------------------------------------------------------------- interruption and undoing


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_only_the_first_signal_counts(signals: Interrupts, number: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), number)
    os.kill(os.getpid(), number)


def test_held_signal_comes_after_the_block(signals: Interrupts) -> None:
    done = False
    with pytest.raises(KeyboardInterrupt), signals.held():
        os.kill(os.getpid(), signal.SIGINT)
        done = True
    assert done


def test_signals_are_ignored_at_the_end(signals: Interrupts) -> None:
    with interrupts():
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_signals_may_come_too_late(signals: Interrupts) -> None:
    with Undo(signals) as undo:
        undo.keep()
        os.kill(os.getpid(), signal.SIGINT)
    with signals.held():
        pass


def test_undone_in_reverse_whatever_fails(
    signals: Interrupts, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []

    def fail() -> None:
        raise UserError("it is stuck")

    undo = Undo(signals)
    with pytest.raises(ValueError, match="cause"), undo:
        undo.later(done.append, "first")
        undo.later(fail)
        undo.later(done.append, "last")
        raise ValueError("cause")
    assert done == ["last", "first"]
    assert not undo.complete
    assert capsys.readouterr().err == "vswap: left behind, for it is stuck\n"


def test_undoing_is_not_interrupted(signals: Interrupts) -> None:
    done: list[str] = []
    undo = Undo(signals)
    with pytest.raises(KeyboardInterrupt), undo:
        undo.later(done.append, "first")
        undo.later(os.kill, os.getpid(), signal.SIGINT)
        raise ValueError("cause")
    assert done == ["first"]
    assert undo.complete


def test_nothing_is_undone_when_kept(signals: Interrupts) -> None:
    done: list[str] = []
    with Undo(signals) as undo:
        undo.later(done.append, "first")
        undo.keep()
    assert not done


# ---------------------------------------------------------------- the kernel's settings

Fail = Callable[[Path, str], list[str]]


@pytest.fixture(params=[UserError("it makes no sense"), OSError(28, "No space left on device")])
def fail(request: pytest.FixtureRequest) -> Fail:
    """What tunes or restores, and cannot."""

    def fails(_directory: Path, _device: str) -> list[str]:
        raise request.param

    return fails


def test_up_goes_on_untuned(
    signals: Interrupts,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fail: Fail,
) -> None:
    monkeypatch.setattr(bringup, "tune", fail)
    monkeypatch.setattr(bringup, "restore", lambda _directory, _device: [])
    with Undo(signals) as undo:
        bringup._tune_kernel("swap0", signals, undo)
    assert capsys.readouterr().err.startswith("vswap: warning: the kernel is not tuned: ")


def test_up_warns_of_each_setting_and_puts_back_what_it_raised(
    signals: Interrupts, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bringup, "tune", lambda _directory, _device: ["x stays", "y stays"])
    monkeypatch.setattr(bringup, "restore", lambda _directory, device: [f"z of {device} is left"])
    with Undo(signals) as undo:
        bringup._tune_kernel("swap0", signals, undo)
    assert capsys.readouterr().err.splitlines() == [
        "vswap: warning: x stays",
        "vswap: warning: y stays",
        "vswap: z of swap0 is left",
    ]


def test_up_puts_back_when_it_is_interrupted_while_it_tunes(
    signals: Interrupts, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def interrupted(_directory: Path, _device: str) -> list[str]:
        os.kill(os.getpid(), signal.SIGINT)
        done.append("tuned")
        return []

    def put_back(_directory: Path, _device: str) -> list[str]:
        done.append("put back")
        return []

    monkeypatch.setattr(bringup, "tune", interrupted)
    monkeypatch.setattr(bringup, "restore", put_back)
    with pytest.raises(KeyboardInterrupt), Undo(signals) as undo:
        bringup._tune_kernel("swap0", signals, undo)
    assert done == ["tuned", "put back"]


def test_a_unit_whose_main_process_has_ended_takes_nothing_down(
    monkeypatch: pytest.MonkeyPatch, fail: Fail
) -> None:
    """A device of its name is one that somebody has made by hand."""
    monkeypatch.delenv("MAINPID", raising=False)
    monkeypatch.setattr(down, "devices", fail)
    assert main(["down", "--of-unit", "--", DEVICE.name]) == 0


def test_down_goes_on_when_it_cannot_put_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fail: Fail
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(down, "restore", fail)
    down._restore(DEVICE.name)
    assert capsys.readouterr().err.startswith("vswap: the kernel's settings stay as they are: ")


def test_down_without_a_device_puts_back_what_a_dead_one_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_back: list[str] = []

    def restore(_directory: Path, device: str) -> list[str]:
        put_back.append(device)
        return []

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(down, "devices", list)
    monkeypatch.setattr(mounts, "devices", list)
    monkeypatch.setattr(down, "restore", restore)
    assert main(["down"]) == 2
    assert put_back == [""]
    assert "no vswap device is here" in capsys.readouterr().err


def test_down_that_is_interrupted_puts_nothing_back(
    swaps: Path, signals: Interrupts, monkeypatch: pytest.MonkeyPatch, fail: Fail
) -> None:
    def stopped(_device: Device, _area: SwapArea, _signals: Interrupts) -> None:
        raise StoppedError("swap is still on")

    monkeypatch.setattr(down, "swap_off", stopped)
    monkeypatch.setattr(down, "restore", fail)
    with pytest.raises(StoppedError, match="swap is still on"):
        down._take_down(DEVICE, [AREA.path], signals)


@pytest.fixture
def unmounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What `down` of a user unmounts; there is a device of root's, and one of the user's."""
    (tmp_path / "mountinfo").write_text(
        "58 27 0:57 / /a/one rw - fuse.vswap one rw,user_id=0\n"
        "59 27 0:58 / /a/two rw - fuse.vswap two rw,user_id=1000\n"
    )
    found: list[str] = []
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(mounts, "_MOUNTINFO", tmp_path / "mountinfo")
    monkeypatch.setattr(down, "serving", lambda _device: [])
    monkeypatch.setattr(down, "unmount", found.append)
    return found


def test_down_by_a_user_is_not_for_a_device_of_root(
    unmounted: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["down", "one"]) == 2
    assert capsys.readouterr() == ("", "vswap: one is another user's: down needs root\n")
    assert unmounted == []


@pytest.mark.usefixtures("kept_signals")
def test_down_by_a_user_takes_his_own_down(unmounted: list[str]) -> None:
    assert main(["down", "two"]) == 0
    assert unmounted == ["/a/two"]


def test_down_by_a_user_puts_nothing_back(monkeypatch: pytest.MonkeyPatch, fail: Fail) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(down, "restore", fail)
    down._restore(DEVICE.name)


# ---------------------------------------------------------------- swapoff

AREA = SwapArea("/dev/loop77", 100 * MIB, 64 * MIB, -2)
DEVICE = Device("swap0", "/nosuch/mount")
SWAPS = "Filename Type Size Used Priority\n/dev/loop77 partition 102400 65536 -2\n"
PYTHON = f"#!{sys.executable}\nimport os, signal, sys\n"


@pytest.fixture
def swaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine swaps on AREA, has memory enough for it, and no cgroups."""
    path = tmp_path / "swaps"
    path.write_text(SWAPS)
    (tmp_path / "meminfo").write_text("MemAvailable: 1048576 kB\nSwapCached: 0 kB\n")
    monkeypatch.setattr(swapdev, "_SWAPS", path)
    monkeypatch.setattr(swapdev, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(swapoff, "groups", lambda: iter(()))
    return path


Stand = Callable[[str, str], None]


def test_swapoff(
    swaps: Path, stand_in: Stand, signals: Interrupts, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in("swapoff", f"#!/bin/sh\ntest $1 = /dev/loop77 && : > {swaps}\n")
    swapoff.swap_off(DEVICE, AREA, signals)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["swapoff of /dev/loop77: 64M to take back", "swapoff of /dev/loop77: done"]


def test_swapoff_that_somebody_else_does(swaps: Path, stand_in: Stand, signals: Interrupts) -> None:
    stand_in("swapoff", f"#!/bin/sh\n: > {swaps}; exit 4\n")
    swapoff.swap_off(DEVICE, AREA, signals)


def test_swapoff_that_fails(swaps: Path, stand_in: Stand, signals: Interrupts) -> None:
    stand_in("swapoff", "#!/bin/sh\necho 'swapoff: Cannot allocate memory' >&2; exit 4\n")
    with pytest.raises(UserError) as caught:
        swapoff.swap_off(DEVICE, AREA, signals)
    assert str(caught.value) == "swap is still on: swapoff: Cannot allocate memory"


def test_swapoff_is_refused_without_memory(
    swaps: Path,
    stand_in: Stand,
    signals: Interrupts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(swapoff, "_ROOM_SECONDS", 0.01)
    (tmp_path / "meminfo").write_text(f"MemAvailable: {90 << 10} kB\nSwapCached: 0 kB\n")
    stand_in("swapoff", f"#!/bin/sh\n: > {swaps}\n")
    with pytest.raises(UserError) as caught:
        swapoff.swap_off(DEVICE, AREA, signals)
    assert str(caught.value) == (
        "not enough memory to take back the 64M on swap0: 6.0M more is needed; "
        "stop something or add other swap, then try again"
    )
    assert swaps.read_text() == SWAPS


def test_swapoff_is_refused_when_it_would_burst_a_cgroup(
    swaps: Path, signals: Interrupts, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = cgroups.Group("/jobs", limit=32 * MIB, used=30 * MIB, file=MIB, swapped=64 * MIB)
    monkeypatch.setattr(swapoff, "groups", lambda: iter((group,)))
    with pytest.raises(UserError) as caught:
        swapoff.swap_off(DEVICE, AREA, signals)
    assert str(caught.value) == (
        "the memory limit of cgroup /jobs is 61M too low to take back what it has on swap0, "
        "and processes in it would be killed; raise the limit or stop some, then try again"
    )
    assert swaps.read_text() == SWAPS


# It interrupts us, as a person would, and then goes on until it is interrupted itself.
INTERRUPTED = (
    PYTHON
    + """
signal.signal(signal.SIGINT, lambda *_: sys.exit(4))
os.kill(os.getppid(), signal.SIGINT)
while True:
    signal.pause()
"""
)


def test_interrupted_swapoff(swaps: Path, stand_in: Stand, signals: Interrupts) -> None:
    stand_in("swapoff", INTERRUPTED)
    with pytest.raises(StoppedError) as caught:
        swapoff.swap_off(DEVICE, AREA, signals)
    assert str(caught.value) == "interrupted; swap is still on, nothing was lost"


def test_interrupted_swapoff_that_was_done(
    swaps: Path, stand_in: Stand, signals: Interrupts
) -> None:
    stand_in(
        "swapoff", INTERRUPTED.replace("sys.exit(4)", f"os.truncate({str(swaps)!r}, 0) or 1/0")
    )
    with pytest.raises(StoppedError) as caught:
        swapoff.swap_off(DEVICE, AREA, signals)
    reason = "interrupted; swap is off by now, `vswap down swap0` does the rest"
    assert str(caught.value) == reason


# ---------------------------------------------------------------- reading ahead of swapoff


@pytest.fixture
def reader(tmp_path: Path, swaps: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """The device answers, and a script reads ahead, which writes its number to a file."""
    monkeypatch.setattr(swapoff, "serving", lambda _device: [77])

    def stand(script: str) -> Path:
        path = tmp_path / "reader"
        path.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))
        return tmp_path / "pid"

    return stand


def alive(pid: Path) -> bool:
    """Whether the process of that number, in a file, has not been waited for."""
    return Path(f"/proc/{pid.read_text().strip()}").exists()


@pytest.mark.parametrize("script", ["echo ahead; exec sleep 60", "exit 0", "exit 3"])
def test_swapoff_begins_when_enough_is_ahead(
    swaps: Path,
    reader: Callable[[str], Path],
    stand_in: Stand,
    signals: Interrupts,
    script: str,
) -> None:
    pid = reader(script)
    stand_in("swapoff", f"#!/bin/sh\ntest -e {pid} && : > {swaps}\n")
    swapoff.swap_off(DEVICE, AREA, signals)
    assert swaps.read_text() == ""
    assert not alive(pid)


def test_swapoff_does_not_begin_when_it_is_interrupted_before(
    swaps: Path, reader: Callable[[str], Path], stand_in: Stand, signals: Interrupts
) -> None:
    pid = reader("kill -INT $PPID; exec sleep 60")
    stand_in("swapoff", f"#!/bin/sh\n: > {swaps}\n")
    with pytest.raises(StoppedError) as caught:
        swapoff.swap_off(DEVICE, AREA, signals)
    assert str(caught.value) == "interrupted; swap is still on, nothing was lost"
    assert swaps.read_text() == SWAPS
    assert not alive(pid)


def test_nothing_more_is_read_ahead_when_swapoff_is_interrupted(
    reader: Callable[[str], Path], stand_in: Stand, signals: Interrupts
) -> None:
    pid = reader("echo ahead; exec sleep 60")
    stand_in("swapoff", INTERRUPTED)
    with pytest.raises(StoppedError, match="swap is still on, nothing was lost"):
        swapoff.swap_off(DEVICE, AREA, signals)
    assert not alive(pid)


@pytest.mark.parametrize("more", ["/swap file 1024 4 -3\n", ""])
def test_nothing_is_read_ahead_beside_other_swap_or_of_a_daemon_that_does_not_answer(
    swaps: Path,
    reader: Callable[[str], Path],
    stand_in: Stand,
    signals: Interrupts,
    monkeypatch: pytest.MonkeyPatch,
    more: str,
) -> None:
    def silent(_device: Device) -> list[int]:
        raise UserError("the daemon does not answer")

    pid = reader("exec sleep 60")
    swaps.write_text(SWAPS + more)
    if not more:
        monkeypatch.setattr(swapoff, "serving", silent)
    stand_in("swapoff", f"#!/bin/sh\n: > {swaps}\n")
    swapoff.swap_off(DEVICE, AREA, signals)
    assert not pid.exists()


def test_nothing_is_read_ahead_without_room(
    reader: Callable[[str], Path],
    signals: Interrupts,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(swapoff, "_ROOM_SECONDS", 0.01)
    pid = reader("exec sleep 60")
    (tmp_path / "meminfo").write_text("MemAvailable: 0 kB\nSwapCached: 0 kB\n")
    with pytest.raises(UserError, match="not enough memory"):
        swapoff.swap_off(DEVICE, AREA, signals)
    assert not pid.exists()


def test_the_bar_counts_what_was_read_ahead(
    swaps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("vswapd.cli.bar.bar", lambda _title, _total: nullcontext(drawn.append))
    with swapoff._meter(DEVICE, AREA) as show:
        for used, cached in ((64, 40), (30, 6), (30, 0)):
            swaps.write_text(SWAPS.replace("65536", str(used << 10)))
            meminfo = f"MemAvailable: 9 kB\nSwapCached: {cached << 10} kB\n"
            (tmp_path / "meminfo").write_text(meminfo)
            show()
        swaps.write_text("")
        show()
    assert drawn == [0, 40 * MIB, 40 * MIB, 40 * MIB, 64 * MIB]


def test_serving_processes(mounted: Path) -> None:
    device = Device("swap0", str(mounted))
    for stats, pids in (
        ({"supervisor_pid": 12, "worker_pid": 34}, [12, 34]),
        ({"supervisor_pid": 1, "worker_pid": "34"}, []),
        ({"supervisor_pid": None, "worker_pid": 34}, [34]),
    ):
        (mounted / "stats.json").write_text(json.dumps(stats))
        assert sorted(serving(device)) == pids
    (mounted / "stats.json").unlink()
    with pytest.raises(UserError):
        serving(device)


def test_progress_takes_what_is_ahead(tmp_path: Path) -> None:
    stats = tmp_path / "stats.json"
    stats.write_text('{"stored_pages": 96, "zero_pages": 4}')
    progress = swapoff.Progress(Device("d", str(tmp_path)), 100 * 4096)
    assert progress.update(100 * 4096) == 0
    assert progress.update(90 * 4096) == 10 * 4096
    stats.write_text('{"stored_pages": 60, "zero_pages": 0}')
    assert progress.update(90 * 4096) == 40 * 4096
    stats.write_text('{"stored_pages": 96, "zero_pages": 0}')
    assert progress.update(90 * 4096) == 40 * 4096
    stats.write_text('{"stored_pages": 9, "backing_pages": 81, "zero_pages": 0}')
    assert progress.update(90 * 4096) == 40 * 4096  # what went to disk is not back
    stats.unlink()
    assert progress.update(50 * 4096) == 50 * 4096
    assert progress.update(0) == 100 * 4096


def test_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # to rich, stderr is a terminal then
    with bar("swapoff /dev/loop77", 64 * MIB) as draw:
        draw(0)
        draw(64 * MIB)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "swapoff /dev/loop77" in shown.err


@pytest.mark.parametrize(("elsewhere", "missing"), [(0, 61), (60, 1), (61, 0), (999, 0)])
def test_tightest_cgroup(elsewhere: int, missing: int) -> None:
    roomy = cgroups.Group("/a", limit=99, used=0, file=0, swapped=80)
    tight = cgroups.Group("/b", limit=32, used=30, file=1, swapped=64)
    found = cgroups.tightest([roomy, tight], elsewhere)
    assert (found.missing(elsewhere) if found else 0) == missing


def test_cgroups_of_both_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def group(path: str, **files: str) -> None:
        for name, text in files.items():
            (tmp_path / path).mkdir(parents=True, exist_ok=True)
            (tmp_path / path / name.replace("__", ".")).write_text(text)

    limited = {"memory__current": "7\n", "memory__swap__current": "9\n"}
    stat = "anon 4\nactive_file 1\ninactive_file 2\nswapcached 3\n"
    group("v2", memory__stat=stat)
    group("v2/jobs", memory__max="max\n", memory__stat=stat, **limited)
    group("v2/jobs/one", memory__max="8\n", memory__stat=stat, **limited)
    group("v2/gone", memory__max="8\n")
    total = "swap 1\ntotal_swap 9\ntotal_swapcached 3\ntotal_active_file 1\ntotal_inactive_file 2\n"
    usage = {"memory__usage_in_bytes": "7\n", "memory__stat": total}
    group("v1", memory__limit_in_bytes="9223372036854771712\n", **usage)
    group("v1/two", memory__limit_in_bytes="8\n", **usage)
    roots = {"cgroup2": [str(tmp_path / "v2")], "cgroup": [str(tmp_path / "v1")]}
    monkeypatch.setattr(cgroups, "mount_points", lambda fstype: roots[fstype])
    assert list(cgroups.groups()) == [
        cgroups.Group("/jobs/one", limit=8, used=7, file=3, swapped=6),
        cgroups.Group("/two", limit=8, used=7, file=3, swapped=6),
    ]


def test_the_machines_own_cgroups() -> None:
    assert all(group.limit < 1 << 60 for group in cgroups.groups())


# ---------------------------------------------------------------- status

STATS = {
    "size": 1 << 30,
    "supervisor_pid": 12,
    "worker_pid": 34,
    "orig_data_size": 30 * MIB,
    "compr_data_size": 10 * MIB,
    "mem_used_total": 11 * MIB,
    "zero_pages": 512,
}


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that counts as the mount of the device swap0."""
    point = tmp_path / "swap0"
    point.mkdir()
    (tmp_path / "mountinfo").write_text(
        f"58 27 0:57 / {point} rw - fuse.vswap swap0 rw,user_id=0\n"
    )
    monkeypatch.setattr(mounts, "_MOUNTINFO", tmp_path / "mountinfo")
    return point


def test_status_json(mounted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (mounted / "stats.json").write_text(json.dumps(STATS))
    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "devices": [
            {
                "name": "swap0",
                "size": 1 << 30,
                "mount": str(mounted),
                "loop": None,
                "swap": False,
                "supervisor_pid": 12,
                "worker_pid": 34,
                "stats": STATS,
            }
        ]
    }


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (None, "the daemon of swap0 cannot be asked: cat: "),
        ("{", "the daemon of swap0 answers, but not with JSON"),
        ("[]", "the daemon of swap0 answers, but not with a JSON object"),
    ],
)
def test_status_of_a_device_that_does_not_answer(
    mounted: Path, capsys: pytest.CaptureFixture[str], text: str | None, error: str
) -> None:
    if text is not None:
        (mounted / "stats.json").write_text(text)
    assert main(["status", "swap0", "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)["devices"]
    assert found.pop("error").startswith(error)
    assert found == {
        "name": "swap0",
        "size": None,
        "mount": str(mounted),
        "loop": None,
        "swap": False,
        "supervisor_pid": None,
        "worker_pid": None,
        "stats": None,
    }


def test_status_without_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mountinfo").touch()
    monkeypatch.setattr(mounts, "_MOUNTINFO", tmp_path / "mountinfo")
    assert main(["status"]) == 0
    assert capsys.readouterr() == ("", "no vswap device is here; `vswap up` makes one\n")
    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"devices": []}


def test_status_with_loop_and_swap(
    mounted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loop77/loop").mkdir(parents=True)
    (tmp_path / "loop77/loop/backing_file").write_text(f"{mounted}/swap\n")
    (tmp_path / "swaps").write_text(SWAPS)
    monkeypatch.setattr(mounts, "_SYS_BLOCK", tmp_path)
    monkeypatch.setattr(swapdev, "_SWAPS", tmp_path / "swaps")
    found = status_of(Device("swap0", str(mounted)))
    assert (found.loop, found.swap) == ("/dev/loop77", True)


def test_table() -> None:
    assert list(table(["A", "B"], [["long", "1"], ["x", "100"]], right=["B"])) == [
        "A       B",
        "long    1",
        "x     100",
    ]


# ---------------------------------------------------------------- ctl


@pytest.fixture
def signals_as_before(signals: Interrupts) -> None:
    """`ctl` leaves them ignored, as it is the last that a process does."""


@pytest.mark.usefixtures("signals_as_before")
def test_ctl(mounted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (mounted / "ctl").touch()
    assert main(["ctl", "set", "limit=1G", "--device", "swap0"]) == 0
    assert capsys.readouterr() == ("set limit=1G\n", "")


@pytest.mark.usefixtures("signals_as_before")
def test_ctl_that_is_refused(mounted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """This file of the kernel's refuses what is no number with EINVAL, and can be read."""
    (mounted / "ctl").symlink_to("/proc/self/oom_score_adj")
    assert main(["ctl", "nonsense"]) == 2
    score = Path("/proc/self/oom_score_adj").read_text().strip()
    assert capsys.readouterr() == ("", f"vswap: {score}\n")


@pytest.mark.usefixtures("signals_as_before")
@pytest.mark.parametrize(
    ("outcome", "code", "out", "err"),
    [
        (FindingsError("PROBLEMS: 1\nUNIT: bad"), 1, "PROBLEMS: 1\nUNIT: bad\n", ""),
        (RefusedError("no memory"), 1, "", "vswap: no memory\n"),
        (UserError("the daemon is gone"), 2, "", "vswap: the daemon is gone\n"),
        (KeyboardInterrupt(), 130, "", "vswap: interrupted; the daemon goes on with check\n"),
    ],
)
def test_ctl_s_exit_codes(
    outcome: BaseException,
    code: int,
    out: str,
    err: str,
    mounted: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def write(*_how: object) -> str:
        raise outcome

    monkeypatch.setattr(ctl, "write_ctl", write)
    assert main(["ctl", "check"]) == code
    assert capsys.readouterr() == (out, err)


def test_ctl_s_help_has_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ctl", "--help"]) == 0
    shown = capsys.readouterr().out
    for name, (arguments, _about) in COMMANDS.items():
        assert f"  {f'{name} {arguments}'.strip()} " in f"{shown} ".replace("\n", " \n")
    assert "vswap ctl memory_limit 512M\n" in shown


@pytest.mark.parametrize("command", ["compact", "recompress", "writeback", "check"])
def test_progress_of_a_command(
    command: str,
    mounted: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    stats = mounted / "stats.json"
    stats.write_text('{"segments_cleaned": 1, "pages_recompressed": 2, "compr_data_size": 8192}')
    with ctl._meter(Device("swap0", str(mounted)), command) as alive:
        stats.write_text(
            '{"segments_cleaned": 4, "pages_recompressed": 9, "compr_data_size": 0, '
            '"writeback_pages": 5, "writeback_bytes": 4096}'
        )
        alive()
        stats.unlink()
        with pytest.raises(UserError, match="cannot be asked"):
            alive()
    said = {
        "compact": "3 segments cleaned",
        "recompress": "7 pages, 8.0K smaller",
        "writeback": "5 pages, 4.0K written",
        "check": "reading all that is stored",
    }
    assert said[command] in capsys.readouterr().err


def test_no_progress_without_a_terminal(mounted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ctl._meter(Device("swap0", str(mounted)), "check") as alive:
        with pytest.raises(UserError):
            alive()
        (mounted / "stats.json").write_text("{}")
        alive()
    assert capsys.readouterr() == ("", "")


def test_a_directory_with_something_in_it_is_not_covered(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    done = vswap("run", "--mount", str(tmp_path), "--size", "1M")
    assert done.returncode == 2
    assert "is not empty" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("point", ["/run", "/run/vswap"])
def test_the_run_directory_is_not_covered(point: str) -> None:
    done = vswap("run", "--mount", point, "--size", "1M")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_name_that_no_file_could_have(tmp_path: Path) -> None:
    done = vswap("run", "--mount", str(tmp_path / ("x" * 201)), "--size", "1M")
    assert done.returncode == 2
    assert "200 characters" in done.stderr


LONG = "n" * 300


@pytest.mark.parametrize(
    "args",
    [
        ["run", "--mount", LONG],
        ["up", "--mount", f"{LONG}/x"],
        ["report", "-o", LONG],
        ["down", f"./{LONG}"],
        ["ctl", "help", "--device", f"./{LONG}"],
        ["install", "--dry-run", "--root", f"/{LONG}"],
    ],
    ids=lambda args: args[0],
)
def test_a_path_too_long_is_a_mistake(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(f"vswap: .*{LONG}.* cannot be used: File name too long\n", err)


@pytest.mark.parametrize(
    "args",
    [
        ["run", "--mount", "rel"],
        ["up", "--mount", "rel"],
        ["down", "./rel"],
        ["doctor", "--backing", "rel"],
        ["run", "--mount", "/nosuch/test-nowhere", "--backing", "rel"],
        ["backing", "attach", "rel"],
    ],
    ids=" ".join,
)
def test_a_path_in_a_directory_that_is_gone_is_a_mistake(
    args: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    with monkeypatch.context() as within:
        within.chdir(gone)
        gone.rmdir()
        assert main(args) == 2
    path = next(arg for arg in args if "rel" in arg)
    reason = f"{path} cannot be used: the working directory is gone"
    assert capsys.readouterr() == ("", f"vswap: {reason}\n")


def test_run_needs_a_directory_of_root_too() -> None:
    done = vswap("run")
    assert (done.returncode, done.stderr) == (
        2,
        "vswap: run needs --mount DIR, an empty directory\n",
    )

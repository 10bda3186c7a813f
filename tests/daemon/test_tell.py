"""Telling a daemon something: one that takes its time, refuses, hangs, or is gone."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vswap.errors import UserError
from vswapd import tell
from vswapd.ask import REFUSED
from vswapd.mounts import Device
from vswapd.tell import FindingsError, RefusedError, write_ctl


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def alive() -> None:
    """A daemon that answers."""


def test_write_ctl(tmp_path: Path) -> None:
    (tmp_path / "ctl").touch()
    assert write_ctl(Device("d", str(tmp_path)), "drain now", alive) == "drain now"


def test_write_ctl_makes_no_file(tmp_path: Path) -> None:
    reason = refusal(lambda: write_ctl(Device("d", str(tmp_path)), "drain", alive))
    assert reason.startswith("the daemon of d cannot be asked: ")
    assert reason.endswith("/ctl: No such file or directory")
    assert not (tmp_path / "ctl").exists()


def test_write_ctl_tells_the_reason_for_a_refusal(tmp_path: Path) -> None:
    """This file of the kernel's refuses what is no number with EINVAL, and can be read."""
    (tmp_path / "ctl").symlink_to("/proc/self/oom_score_adj")
    score = Path("/proc/self/oom_score_adj").read_text().strip()
    assert refusal(lambda: write_ctl(Device("d", str(tmp_path)), "drain", alive)) == score


def test_write_ctl_refuses_what_is_too_long(tmp_path: Path) -> None:
    reason = refusal(lambda: write_ctl(Device("d", str(tmp_path)), "x" * 1001, alive))
    assert reason == "a command has at most 1000 characters, and this 1001"


Answering = Callable[[str], Device]


@pytest.fixture
def answering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answering:
    """A device whose `ctl` is asked by this Python code."""

    def device(code: str) -> Device:
        script = tmp_path / "ask.py"
        script.write_text("import sys\nsys.stdin.read()\n" + code)
        monkeypatch.setattr(tell, "_ASK", script)
        monkeypatch.setattr(tell, "_LOOK_SECONDS", 0.01)
        return Device("d", str(tmp_path))

    return device


def refusing(code: int, result: str) -> str:
    """As vswapd/ask.py ends after a write that failed."""
    said = f"print({result!r})\nsys.stderr.write({os.strerror(code)!r})\n"
    return f"{said}sys.exit({REFUSED})"


def test_findings_are_told_apart(answering: Answering) -> None:
    device = answering(refusing(errno.EUCLEAN, "PROBLEMS: 1\nUNIT: bad"))
    with pytest.raises(FindingsError) as caught:
        write_ctl(device, "check", alive)
    assert str(caught.value) == "PROBLEMS: 1\nUNIT: bad"


def test_what_a_daemon_could_not_do_is_no_mistake(answering: Answering) -> None:
    device = answering(refusing(errno.ENOMEM, "error: Cannot allocate memory"))
    with pytest.raises(RefusedError, match=r"^Cannot allocate memory$"):
        write_ctl(device, "compact", alive)


def test_write_ctl_to_a_daemon_that_is_gone(answering: Answering) -> None:
    device = answering(f"sys.exit('ctl: ' + {os.strerror(errno.ENOTCONN)!r})")
    reason = refusal(lambda: write_ctl(device, "compact", alive))
    assert reason == "the daemon of d is gone; `vswap down d` clears the rest"


def test_write_ctl_waits_while_the_daemon_answers(tmp_path: Path, answering: Answering) -> None:
    os.mkfifo(tmp_path / "go")
    device = answering(f"print(open({str(tmp_path / 'go')!r}).read())")
    asked: list[int] = []

    def answers() -> None:
        asked.append(1)
        if len(asked) % 2:
            raise UserError("not now")
        if len(asked) == 4:
            (tmp_path / "go").write_text("done at last")

    assert write_ctl(device, "compact", answers) == "done at last"


def test_write_ctl_to_a_daemon_that_hangs(
    tmp_path: Path, answering: Answering, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "go")
    device = answering(f"open({str(tmp_path / 'go')!r}).read()")
    monkeypatch.setattr(tell, "HUNG_SECONDS", 0.05)

    def hangs() -> None:
        raise UserError("the daemon of d does not answer (waited 5 s)")

    reason = refusal(lambda: write_ctl(device, "compact", hangs))
    assert reason == "the daemon of d does not answer (waited 5 s)"
    tell._abandoned.pop().wait(30)

"""The kernel's settings, in a directory that stands for the kernel's."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from vswap.errors import UserError
from vswapd import mounts
from vswapd.tuning import KNOBS, Knob, knobs, raised, restore, tune

CLUSTER = "proc/sys/vm/page-cluster"
POLL = "sys/module/haltpoll/parameters/guest_halt_poll_ns"
GOVERNOR = "sys/devices/system/cpu/cpuidle/current_governor"

Mounted = Callable[..., None]


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """A guest that reads ahead 8 pages and does not poll."""
    root = tmp_path / "kernel"
    for path, text in ((CLUSTER, "3\n"), (POLL, "0\n"), (GOVERNOR, "haltpoll\n")):
        (root / path).parent.mkdir(parents=True)
        (root / path).write_text(text)
    return root


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The run directory, as `up` has made it by the time that it tunes."""
    directory = tmp_path / "run"
    directory.mkdir()
    return directory


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mounted:
    """Say which devices are mounted."""
    path = tmp_path / "mountinfo"
    monkeypatch.setattr(mounts, "_MOUNTINFO", path)

    def mount(*names: str) -> None:
        lines = (
            f"58 27 0:{number} / /m/{name} rw - fuse.vswap {name} rw,user_id=0\n"
            for number, name in enumerate(names)
        )
        path.write_text("".join(lines))

    mount("a", "b")
    return mount


pytestmark = pytest.mark.usefixtures("mounted")


def values(kernel: Path) -> tuple[int, int]:
    return int((kernel / CLUSTER).read_text()), int((kernel / POLL).read_text())


def record(run: Path) -> dict[str, object]:
    found = json.loads((run / "tuning.json").read_text())
    assert isinstance(found, dict)
    return found


# ---------------------------------------------------------------- one device


def test_raised_and_put_back(kernel: Path, run: Path) -> None:
    assert tune(run, "a", knobs(kernel)) == []
    assert values(kernel) == (5, 200_000)
    assert restore(run, "a") == []
    assert values(kernel) == (3, 0)
    assert not run.exists()


def test_what_is_too_high_is_lowered(kernel: Path, run: Path) -> None:
    boost = kernel / "proc/sys/vm/watermark_boost_factor"
    boost.write_text("15000\n")
    tune(run, "a", knobs(kernel))
    assert int(boost.read_text()) == 0
    assert restore(run, "a") == []
    assert int(boost.read_text()) == 15000


@pytest.mark.parametrize(("before", "wanted"), [(0, 0), (-1, -1)])
def test_what_is_low_enough_is_left_alone(
    kernel: Path, run: Path, before: int, wanted: int
) -> None:
    boost = kernel / "proc/sys/vm/watermark_boost_factor"
    boost.write_text(f"{before}\n")
    tune(run, "a", knobs(kernel))
    assert int(boost.read_text()) == wanted
    assert str(boost) not in (run / "tuning.json").read_text()


@pytest.mark.parametrize(
    ("pages", "factor"), [(54_000, 190), (1 << 18, 40), (6 << 20, 10), (1 << 10, 1000)]
)
def test_the_marks_are_four_mib_apart(
    kernel: Path, run: Path, monkeypatch: pytest.MonkeyPatch, pages: int, factor: int
) -> None:
    """In ten-thousandths of memory, and never less than the kernel's own 10."""
    sizes = {"SC_PHYS_PAGES": pages, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    scale = kernel / "proc/sys/vm/watermark_scale_factor"
    scale.write_text("10\n")
    tune(run, "a", knobs(kernel))
    assert int(scale.read_text()) == factor
    assert restore(run, "a") == []
    assert int(scale.read_text()) == 10


def test_the_record(kernel: Path, run: Path) -> None:
    tune(run, "a", knobs(kernel))
    assert record(run) == {
        "devices": ["a"],
        "changes": {
            str(kernel / CLUSTER): {"before": 3, "ours": 5},
            str(kernel / POLL): {"before": 0, "ours": 200_000},
        },
    }
    modes = {path.name: path.stat().st_mode & 0o777 for path in run.iterdir()}
    assert modes == {"tuning.json": 0o644, "tuning.lock": 0o600}


def test_never_lowered(kernel: Path, run: Path) -> None:
    (kernel / CLUSTER).write_text("6\n")
    (kernel / POLL).write_text("200000\n")
    tune(run, "a", knobs(kernel))
    assert values(kernel) == (6, 200_000)
    assert restore(run, "a") == []
    assert values(kernel) == (6, 200_000)


@pytest.mark.parametrize("governor", ["menu\n", "haltpoll2\n", None])
def test_no_polling_under_another_governor(kernel: Path, run: Path, governor: str | None) -> None:
    if governor is None:
        (kernel / GOVERNOR).unlink()
    else:
        (kernel / GOVERNOR).write_text(governor)
    assert tune(run, "a", knobs(kernel)) == []
    assert values(kernel) == (5, 0)


def test_a_kernel_without_either(tmp_path: Path, run: Path) -> None:
    assert tune(run, "a", knobs(tmp_path / "nosuch")) == []
    assert restore(run, "a") == []
    assert not run.exists()


def test_what_is_gone_when_it_is_put_back(kernel: Path, run: Path) -> None:
    tune(run, "a", knobs(kernel))
    (kernel / POLL).unlink()
    assert restore(run, "a") == []
    assert int((kernel / CLUSTER).read_text()) == 3
    assert not (kernel / POLL).exists()


def test_what_somebody_else_has_set_is_left_alone(kernel: Path, run: Path) -> None:
    tune(run, "a", knobs(kernel))
    (kernel / CLUSTER).write_text("0\n")
    assert restore(run, "a") == [
        f"{kernel / CLUSTER} is 0 by now, not the 5 that it was set to; left alone"
    ]
    assert values(kernel) == (0, 0)
    assert not run.exists()


def test_what_somebody_else_has_put_back_is_nothing_to_tell(kernel: Path, run: Path) -> None:
    tune(run, "a", knobs(kernel))
    (kernel / CLUSTER).write_text("3\n")
    assert restore(run, "a") == []


def test_the_directory_stays_when_a_log_is_in_it(kernel: Path, run: Path) -> None:
    (run / "a.log").touch()
    tune(run, "a", knobs(kernel))
    restore(run, "a")
    assert [path.name for path in run.iterdir()] == ["a.log"]


def test_nothing_was_tuned(kernel: Path, run: Path, tmp_path: Path) -> None:
    assert restore(run, "a") == []
    assert run.exists()
    assert restore(tmp_path / "nosuch", "a") == []


def test_the_machines_own_settings_are_only_named() -> None:
    vm = [f"/proc/sys/vm/watermark_{name}_factor" for name in ("boost", "scale")]
    assert [str(knob.path) for knob in KNOBS] == [f"/{CLUSTER}", f"/{POLL}", *vm]


# ---------------------------------------------------------------- several devices


def test_the_last_device_puts_back(kernel: Path, run: Path, mounted: Mounted) -> None:
    tune(run, "a", knobs(kernel))
    tune(run, "b", knobs(kernel))
    assert record(run)["devices"] == ["a", "b"]
    mounted("b")
    assert restore(run, "a") == []
    assert values(kernel) == (5, 200_000)
    assert record(run)["devices"] == ["b"]
    mounted()
    assert restore(run, "b") == []
    assert values(kernel) == (3, 0)


def test_a_device_that_does_not_want_it(kernel: Path, run: Path, mounted: Mounted) -> None:
    """Neither keeps it in force nor ends it for others."""
    tune(run, "a", knobs(kernel))
    restore(run, "b")
    assert values(kernel) == (5, 200_000)
    mounted("b")
    restore(run, "a")
    assert values(kernel) == (3, 0)


def test_a_device_that_is_gone_does_not_count(kernel: Path, run: Path, mounted: Mounted) -> None:
    tune(run, "a", knobs(kernel))
    tune(run, "b", knobs(kernel))
    mounted()  # b has been unmounted by hand
    restore(run, "a")
    assert values(kernel) == (3, 0)


def test_what_a_device_that_is_gone_left_is_taken_over(
    kernel: Path, run: Path, mounted: Mounted
) -> None:
    tune(run, "a", knobs(kernel))
    mounted("b")
    tune(run, "b", knobs(kernel))
    assert record(run)["devices"] == ["b"]
    restore(run, "b")
    assert values(kernel) == (3, 0)


def test_a_second_device_raises_what_was_lowered_since(
    kernel: Path, run: Path, mounted: Mounted
) -> None:
    tune(run, "a", knobs(kernel))
    (kernel / CLUSTER).write_text("1\n")
    tune(run, "b", knobs(kernel))
    assert values(kernel) == (5, 200_000)
    mounted()
    restore(run, "a")
    assert values(kernel) == (1, 0)


def test_a_later_version_that_wants_more(kernel: Path, run: Path, mounted: Mounted) -> None:
    tune(run, "a", knobs(kernel))
    tune(run, "b", (Knob(kernel / CLUSTER, 6),))
    assert values(kernel) == (6, 200_000)
    mounted()
    restore(run, "b")
    assert values(kernel) == (3, 0)


# ---------------------------------------------------------------- what cannot be done


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Let a file be read and not written, by root as well."""
    written = Path.write_text
    refused: set[Path] = set()

    def write(path: Path, text: str) -> int:
        if path in refused:
            raise OSError(30, "Read-only file system", str(path))
        return written(path, text)

    monkeypatch.setattr(Path, "write_text", write)
    return refused.add


def test_a_setting_that_may_not_be_written(
    kernel: Path, run: Path, read_only: Callable[[Path], None]
) -> None:
    read_only(kernel / CLUSTER)
    problem = f"{kernel / CLUSTER} stays as it is: Read-only file system"
    assert tune(run, "a", knobs(kernel)) == [problem]
    assert values(kernel) == (3, 200_000)
    assert record(run)["changes"] == {str(kernel / POLL): {"before": 0, "ours": 200_000}}
    assert restore(run, "a") == []
    assert values(kernel) == (3, 0)


def test_a_setting_that_holds_no_number(kernel: Path, run: Path) -> None:
    (kernel / CLUSTER).write_text("many\n")
    problem = f"{kernel / CLUSTER} stays as it is: it does not hold a number"
    assert tune(run, "a", knobs(kernel)) == [problem]
    assert int((kernel / POLL).read_text()) == 200_000


def test_what_would_be_raised(kernel: Path) -> None:
    assert raised(knobs(kernel)) == {kernel / CLUSTER: 5, kernel / POLL: 200_000}
    (kernel / CLUSTER).write_text("6\n")
    assert raised(knobs(kernel)) == {kernel / POLL: 200_000}
    assert int((kernel / POLL).read_text()) == 0


def test_a_setting_that_may_not_be_read(kernel: Path, run: Path) -> None:
    (kernel / CLUSTER).unlink()
    (kernel / CLUSTER).mkdir()
    problem = f"{kernel / CLUSTER} stays as it is: Is a directory"
    assert tune(run, "a", knobs(kernel)) == [problem]
    assert int((kernel / POLL).read_text()) == 200_000


def test_a_setting_that_may_not_be_put_back(
    kernel: Path, run: Path, read_only: Callable[[Path], None]
) -> None:
    tune(run, "a", knobs(kernel))
    read_only(kernel / CLUSTER)
    reason = f"{kernel / CLUSTER} cannot be set back to 3: Read-only file system"
    assert restore(run, "a") == [reason]
    assert values(kernel) == (5, 0)
    assert not run.exists()


def test_nothing_is_changed_that_cannot_be_recorded(
    kernel: Path, run: Path, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        tune(tmp_path / "nosuch", "a", knobs(kernel))
    (run / "tuning.json.new").mkdir()
    with pytest.raises(IsADirectoryError):
        tune(run, "a", knobs(kernel))
    assert values(kernel) == (3, 0)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"devices": [], "changes": {"/x": 1}}', '{"changes": {}}', "\xff"]
)
def test_a_record_that_makes_no_sense(kernel: Path, run: Path, text: str) -> None:
    (run / "tuning.json").write_text(text, encoding="latin-1")
    reason = r"tuning\.json makes no sense; look at it, and remove it$"
    with pytest.raises(UserError, match=reason):
        restore(run, "a")
    with pytest.raises(UserError, match=reason):
        tune(run, "a", knobs(kernel))
    assert values(kernel) == (3, 0)


# ---------------------------------------------------------------- killed, and in a hurry


def test_killed_before_the_settings_were_raised(
    kernel: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is there first; what it tells of has not happened, which is no other's doing."""

    def killed(_path: Path, _text: str) -> int:
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Path, "write_text", killed)
        tune(run, "a", knobs(kernel))
    assert record(run)["devices"] == ["a"]
    assert values(kernel) == (3, 0)
    assert restore(run, "a") == []
    assert values(kernel) == (3, 0)


def test_killed_between_two_settings(
    kernel: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = Path.write_text

    def killed(path: Path, text: str) -> int:
        if path.name == "guest_halt_poll_ns":
            raise SystemExit
        return written(path, text)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Path, "write_text", killed)
        tune(run, "a", knobs(kernel))
    assert values(kernel) == (5, 0)
    assert restore(run, "a") == []
    assert values(kernel) == (3, 0)


def test_killed_while_putting_back(
    kernel: Path, run: Path, monkeypatch: pytest.MonkeyPatch, mounted: Mounted
) -> None:
    tune(run, "a", knobs(kernel))

    def killed(_path: Path, missing_ok: bool = False) -> None:
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Path, "unlink", killed)
        restore(run, "a")
    assert values(kernel) == (3, 0)
    mounted("b")
    tune(run, "b", knobs(kernel))
    assert values(kernel) == (5, 200_000)
    assert restore(run, "b") == []
    assert values(kernel) == (3, 0)


def test_half_a_record_is_not_looked_at(kernel: Path, run: Path) -> None:
    (run / "tuning.json.new").write_text('{"devi')
    tune(run, "a", knobs(kernel))
    restore(run, "a")
    assert not run.exists()


def test_who_holds_the_lock_is_waited_for(kernel: Path, run: Path) -> None:
    held = os.open(run / "tuning.lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(held, fcntl.LOCK_EX)
    waiting = threading.Thread(target=tune, args=(run, "a", knobs(kernel)))
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    assert values(kernel) == (3, 0)
    os.close(held)
    waiting.join()
    assert values(kernel) == (5, 200_000)


def test_a_lock_that_was_removed_is_no_lock(
    kernel: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who held it has removed it with the rest: it must be had anew, for others see another."""
    taken = []

    def flock(fd: int, how: int) -> None:
        taken.append(os.fstat(fd).st_ino)
        if len(taken) == 1:
            (run / "tuning.lock").unlink()
        assert how == fcntl.LOCK_EX

    monkeypatch.setattr(fcntl, "flock", flock)
    tune(run, "a", knobs(kernel))
    assert len(taken) == 2
    assert taken[1] == (run / "tuning.lock").stat().st_ino


LOOP = """
import sys
from pathlib import Path
from vswapd import mounts, tuning
root, name = Path(sys.argv[1]), sys.argv[2]
mounts._MOUNTINFO = root / "mountinfo"
for _ in range(100):
    assert tuning.tune(root / "run", name, tuning.knobs(root / "kernel")) == []
    assert (root / "kernel" / sys.argv[3]).read_text() == "5"
    assert tuning.restore(root / "run", name) == []
"""


def test_two_that_come_and_go_at_once(kernel: Path, run: Path, tmp_path: Path) -> None:
    (run / "a.log").touch()  # as each device has one, so the directory stays
    source = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{source}:{source / 'daemon'}"}
    command = [sys.executable, "-c", LOOP, str(tmp_path)]
    started = [subprocess.Popen([*command, name, CLUSTER], env=environment) for name in "ab"]
    assert [process.wait(60) for process in started] == [0, 0]
    assert values(kernel) == (3, 0)
    assert [path.name for path in run.iterdir()] == ["a.log"]

"""Each check of the machine, in each of its outcomes."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from vswapd.doctor import CHECKS, Level, Machine, examine, guarded, worst
from vswapd.doctor.finding import Finding, failure, good, warning

OK, WARNING, FAILURE = Level
Make = Callable[[Mapping[str, str | None]], Machine]

USER = "Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\n"
WEAK = "Uid:\t0\t0\t0\t0\nCapEff:\t0000000000000000\n"
ADMIN = "Uid:\t0\t0\t0\t0\nCapEff:\t0000000000200000\n"
STATUS, SWAPS = "proc/self/status", "proc/swaps"
FREE_LIMITS = (
    "Max open files    100    100    files\n"
    "Max locked memory         unlimited            unlimited            bytes\n"
    "Max realtime priority     1                    1\n"
)
MOUNTS = """\
1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 0:57 / /run/vswap/swap0 rw - fuse.vswap swap0 rw,user_id=0
"""
OURS = {
    "proc/self/mountinfo": MOUNTS,
    "sys/block/loop3/loop/backing_file": "/run/vswap/swap0/swap\n",
    "sys/block/loop4/loop/backing_file": "/var/other\n",
}
CGROUP_1 = {
    "proc/self/mountinfo": "3 1 0:51 / /cg/memory rw - cgroup cgroup rw,memory\n",
    "proc/self/cgroup": "4:memory:/a\n3:cpu,cpuacct:/a\n0::/\n",
}


def swaps(*areas: str) -> str:
    """/proc/swaps with areas that are given as "PATH PRIORITY"."""
    lines = ["Filename Type Size Used Priority"]
    for area in areas:
        path, priority = area.split()
        lines.append(f"{path} partition 1048572 0 {priority}")
    return "\n".join(lines) + "\n"


OUTCOMES: list[tuple[str, dict[str, str | None], Level, str]] = [
    ("kernel", {"proc/sys/kernel/osrelease": "5.13.0"}, FAILURE, "install 5.14 or newer"),
    ("kernel", {"proc/sys/kernel/osrelease": "6.1.0-38-amd64"}, OK, "before 6.4 only the unit"),
    ("kernel", {"proc/sys/kernel/osrelease": "6.8.0"}, OK, "from 6.9 on"),
    ("kernel", {"proc/sys/kernel/osrelease": "6.10.1"}, OK, "the kernel is Linux 6.10.1"),
    ("kernel", {"proc/sys/kernel/osrelease": None}, WARNING, "does not tell its version"),
    ("kernel", {"proc/sys/kernel/osrelease": "odd"}, WARNING, "does not tell its version"),
    ("fuse", {}, OK, "/dev/fuse can be opened"),
    ("fuse", {"dev/fuse": None}, FAILURE, "cannot be opened (ENOENT); load the kernel's module"),
    ("fusectl", {}, OK, "can be aborted"),
    ("fusectl", {"proc/self/mountinfo": MOUNTS}, WARNING, "`mount -t fusectl none"),
    ("loop", {}, OK, "/dev/loop-control can be opened"),
    ("loop", {"dev/loop-control": None}, FAILURE, "`modprobe loop`"),
    ("swap", {}, OK, "can swap"),
    ("swap", {SWAPS: None}, FAILURE, "CONFIG_SWAP"),
    ("pressure", {}, OK, "0.25 % of the last minute"),
    ("pressure", {"proc/pressure/memory": None}, OK, "psi=1"),
    ("root", {}, OK, "may mount and swap"),
    ("root", {STATUS: USER}, WARNING, "`sudo vswap doctor`"),
    ("root", {STATUS: WEAK}, FAILURE, "without CAP_SYS_ADMIN"),
    ("capabilities", {}, OK, "kept from waiting for itself"),
    ("capabilities", {STATUS: ADMIN}, WARNING, "; give it CAP_SYS_RESOURCE"),
    ("capabilities", {STATUS: USER}, WARNING, "; run it as root, or give it CAP_SYS_RESOURCE"),
    ("locked-memory", {}, OK, "can be locked"),
    ("locked-memory", {STATUS: ADMIN}, WARNING, "only 8192 KiB of memory can be locked"),
    ("locked-memory", {STATUS: USER, "proc/self/limits": FREE_LIMITS}, OK, "can be locked"),
    ("precedence", {}, OK, "SCHED_RR"),
    ("precedence", {STATUS: ADMIN}, WARNING, "LimitRTPRIO=1"),
    ("precedence", {STATUS: USER, "proc/self/limits": FREE_LIMITS}, OK, "SCHED_RR"),
    ("files", {}, OK, "enough files"),
    ("files", {"proc/self/limits": FREE_LIMITS}, WARNING, "only 100 files can be open"),
    ("container", {}, OK, "no container"),
    ("container", {".dockerenv": ""}, OK, "no container"),
    ("container", {"proc/self/uid_map": "0 1000 1"}, FAILURE, "a user namespace"),
    ("programs", {"usr/sbin/mkswap": None}, FAILURE, "not installed: mkswap; install"),
    ("zswap", {}, OK, "not enabled"),
    ("zswap", {"sys/module/zswap/parameters/enabled": None}, OK, "not enabled"),
    ("zswap", {"sys/module/zswap/parameters/enabled": "Y\n"}, WARNING, "handled twice; `echo N >"),
    ("other-swap", {}, OK, "no other swap"),
    ("other-swap", {SWAPS: None}, OK, "no other swap"),
    ("other-swap", {**OURS, SWAPS: swaps("/dev/loop3 5")}, OK, "no other swap"),
    ("other-swap", {**OURS, SWAPS: swaps("/dev/loop3 5", "/dev/sda2 -2")}, OK, "after ours (5)"),
    (
        "other-swap",
        {**OURS, SWAPS: swaps("/dev/loop3 5", "/dev/zram0 4")},
        WARNING,
        "/dev/zram0 is zram with priority 4: compressed memory twice",
    ),
    (
        "other-swap",
        {**OURS, SWAPS: swaps("/dev/loop3 5", "/dev/loop4 5")},
        WARNING,
        "/dev/loop4 is swap with priority 5, as ours",
    ),
    (
        "other-swap",
        {**OURS, SWAPS: swaps("/dev/loop3 5", "/dev/zram0 100")},
        WARNING,
        "ours has 5: it is filled first; `swapoff /dev/zram0`, or `vswap down`, and `vswap up` "
        "again with `--priority 101`",
    ),
    ("other-swap", {SWAPS: swaps("/swapfile -2")}, WARNING, "comes after it; `swapoff /swapfile`"),
    ("other-swap", {SWAPS: swaps("/swapfile -2")}, WARNING, "or `vswap up --priority 100`"),
    ("other-swap", {SWAPS: swaps("/dev/zram0 32767")}, WARNING, "a lower priority than 32767"),
    ("tuning", {"proc/sys/vm/page-cluster": "3"}, OK, "page-cluster is 3; `vswap up` makes it 5"),
    (
        "tuning",
        {**OURS, "proc/sys/vm/page-cluster": "3"},
        WARNING,
        "though a device is up; `echo 5 > /proc/sys/vm/page-cluster`",
    ),
    ("tuning", {**OURS, "proc/sys/vm/watermark_boost_factor": "15000"}, WARNING, "`echo 0 >"),
    ("swappiness", {}, OK, "vm.swappiness is 100"),
    ("swappiness", {"proc/sys/vm/swappiness": "60"}, OK, "100 to 180 would suit"),
    ("swappiness", {"proc/sys/vm/swappiness": "10"}, WARNING, "`sysctl vm.swappiness=100`"),
    ("swappiness", {"proc/sys/vm/swappiness": None}, OK, "not known"),
    ("overcommit", {}, OK, "may be promised"),
    ("overcommit", {"proc/sys/vm/overcommit_memory": "2"}, WARNING, "vm.overcommit_memory=0"),
    ("memory", {}, OK, "7812 MiB of memory, enough"),
    ("memory", {"proc/meminfo": "MemTotal: 1048576 kB"}, OK, "1024 MiB of memory: a standby is"),
    ("memory", {"proc/meminfo": "MemTotal: 204800 kB"}, WARNING, "--spares 0"),
    ("memory", {"proc/meminfo": None}, FAILURE, "cannot be told"),
    ("cgroup", {}, OK, "no memory limit"),
    ("cgroup", {"sys/fs/cgroup/user/memory.max": "67108864"}, WARNING, "may take 64 MiB"),
    ("cgroup", {"sys/fs/cgroup/user/session/memory.swap.max": "0"}, OK, "which suits the daemon"),
    (
        "cgroup",
        {**CGROUP_1, "cg/memory/a/memory.limit_in_bytes": "33554432"},
        WARNING,
        "may take 32 MiB",
    ),
    (
        "cgroup",
        {**CGROUP_1, "cg/memory/a/memory.limit_in_bytes": "9223372036854771712"},
        OK,
        "no memory limit",
    ),
]


@pytest.mark.parametrize(("name", "changed", "level", "words"), OUTCOMES)
def test_outcome(
    name: str, changed: dict[str, str | None], level: Level, words: str, machine: Make
) -> None:
    found = list(CHECKS[name](machine(changed)))
    assert worst(found) == level
    assert [each.line for each in found if each.level == level and words in each.line]
    for each in found:
        assert bool(each.remedy) == (each.level != OK), "what is to be done is said"
        assert "\n" not in each.line


def test_each_check_has_an_outcome_here_and_no_other_has() -> None:
    assert {name for name, *_ in OUTCOMES} == set(CHECKS)


def test_a_machine_that_is_well(machine: Make) -> None:
    found = list(examine(machine({})))
    assert [each.line for each in found if each.level != OK] == []
    assert {each.check for each in found} == set(CHECKS)


# ---------------------------------------------------------------- what a tree cannot have


class Denied(Machine):
    """A machine whose devices nobody may open."""

    def refusal(self, path: str) -> int:
        return errno.EACCES


@pytest.mark.parametrize(
    ("name", "status", "level", "words"),
    [
        ("fuse", USER, FAILURE, "may not be opened by this user"),
        ("fuse", ADMIN, FAILURE, "may not be opened by root"),
        ("loop", USER, WARNING, "`up` needs root"),
        ("loop", ADMIN, FAILURE, "run `vswap up` on its host"),
    ],
)
def test_devices_that_may_not_be_opened(
    name: str, status: str, level: Level, words: str, machine: Make
) -> None:
    (found,) = CHECKS[name](Denied(machine({STATUS: status}).root))
    assert found.level == level
    assert words in found.line


@pytest.mark.parametrize(
    ("file", "text", "kind"),
    [
        (".dockerenv", "", "docker"),
        ("run/.containerenv", "", "podman"),
        ("run/systemd/container", "lxc\n", "lxc"),
    ],
)
def test_a_container(file: str, text: str, kind: str, machine: Make) -> None:
    made = machine({file: text})
    (made.root / "proc/self/ns/pid").unlink()
    (made.root / "proc/self/ns/pid").symlink_to("pid:[4026532201]")
    (found,) = CHECKS["container"](made)
    assert (found.level, f"a container ({kind})" in found.text) == (WARNING, True)


@pytest.mark.parametrize(
    ("status", "mode", "level", "words"),
    [
        (USER, 0o4755, OK, "installed: fusermount3"),
        (USER, 0o755, FAILURE, "`chmod u+s "),
        (USER, None, FAILURE, "install fuse3"),
        (ADMIN, 0o755, OK, "installed: fusermount3"),
        (ADMIN, None, OK, "only other users than root need"),
    ],
)
def test_what_mounts_for_users(
    status: str,
    mode: int | None,
    level: Level,
    words: str,
    machine: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    made = machine({STATUS: status})
    helper = made.root / "usr/bin/fusermount3"
    helper.chmod(mode or 0)
    if mode is None:
        helper.unlink()
    *_, found = CHECKS["programs"](made)
    assert (found.level, words in found.line) == (level, True)


def test_halt_polling_counts_in_guests_of_its_governor_only(machine: Make) -> None:
    parameter = {"sys/module/haltpoll/parameters/guest_halt_poll_ns": "0"}
    governor = "sys/devices/system/cpu/cpuidle/current_governor"
    other = list(CHECKS["tuning"](machine({**parameter, governor: "menu\n"})))
    ours = list(CHECKS["tuning"](machine({**parameter, governor: "haltpoll\n"})))
    assert not any("guest_halt_poll_ns" in each.text for each in other)
    assert any("guest_halt_poll_ns is 0; `vswap up` makes it 200000" in e.text for e in ours)


# ---------------------------------------------------------------- what cannot be seen


def test_an_empty_machine_is_no_error(tmp_path: Path) -> None:
    found = list(examine(Machine(tmp_path)))
    assert {each.check for each in found} == set(CHECKS) - {"tuning"}  # which lacks nothing
    assert worst(found) == FAILURE


def test_a_machine_of_which_nothing_can_be_read(machine: Make) -> None:
    """A directory where a file should be cannot be read by anybody, root included."""
    made = machine({})
    for path in [path for path in made.root.rglob("*") if path.is_file()]:
        path.unlink()
        path.mkdir()
    found = list(examine(made))
    assert {each.check for each in found} == set(CHECKS)
    (swappiness,) = (each for each in found if each.check == "swappiness")
    path = made.root / "proc/sys/vm/swappiness"
    assert swappiness.text == f"swappiness cannot be checked: {path}: {os.strerror(errno.EISDIR)}"
    assert all("\n" not in each.line for each in found)


@pytest.mark.parametrize("text", ["", "x\n", "a:b\n", "\0\udcff" * 9, "1 2 3 4 5 6 7 - 8 9 10\n"])
def test_nonsense_everywhere_is_no_error(text: str, machine: Make) -> None:
    made = machine({})
    for path in [path for path in made.root.rglob("*") if path.is_file()]:
        path.write_bytes(os.fsencode(text))
    found = list(examine(made))
    assert {each.check for each in found} == set(CHECKS)
    assert worst(found) >= WARNING
    assert all("\n" not in each.line for each in found)


def test_what_was_found_before_an_error_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> object:
        yield good("one")
        raise PermissionError(errno.EACCES, "Permission denied", "/some/file")

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    first, last = guarded("name", check())  # type: ignore[arg-type]
    assert first == Finding(OK, "one", "", "name")
    assert last.line == (
        "name cannot be checked: /some/file: Permission denied; look again as root"
    )
    assert last.level == WARNING


def test_the_worst_counts() -> None:
    assert worst([]) == OK
    assert worst([good("a"), warning("b", "c"), good("d")]) == WARNING
    assert worst([failure("a", "b"), warning("c", "d")]) == FAILURE

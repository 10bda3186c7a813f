"""What this process may do: as the daemon that it would start (vswapd/memory.py says what for)."""

from __future__ import annotations

import math
import stat
from collections.abc import Iterator

from vswapd.doctor.finding import Finding, failure, good, warning
from vswapd.doctor.machine import Machine

__all__ = ["capabilities", "container", "files", "locked_memory", "precedence", "programs", "root"]

# linux/capability.h
CAP_IPC_LOCK = 14
CAP_SYS_ADMIN = 21
CAP_SYS_NICE = 23
CAP_SYS_RESOURCE = 24

_FILES = 256  # the worker has less than a quarter of that open
_ALL_USERS = 1 << 32
_FIRST_PROCESSES = "pid:[4026531836]"  # the machine's own namespace: PROC_PID_INIT_INO


def root(machine: Machine) -> Iterator[Finding]:
    """Whether swap can be had at all, or only the file."""
    if not machine.is_root:
        yield warning(
            "this is not root: swap cannot be enabled, only `vswap run --mount DIR` works",
            "look again with `sudo vswap doctor`",
        )
    elif machine.has_capability(CAP_SYS_ADMIN):
        yield good("this is root, and may mount and swap")
    else:
        yield failure(
            "this is root without CAP_SYS_ADMIN: it can neither mount nor swap",
            "run it outside of what has taken that away",
        )


def capabilities(machine: Machine) -> Iterator[Finding]:
    """CAP_SYS_RESOURCE, for PR_SET_IO_FLUSHER and oom_score_adj."""
    if machine.has_capability(CAP_SYS_RESOURCE):
        yield good("the daemon can be kept from waiting for itself, and from the OOM killer")
    else:
        yield warning(
            "without CAP_SYS_RESOURCE the daemon may wait for pages that wait for it, and the OOM "
            "killer may choose it",
            _run_as_root(machine, "give it CAP_SYS_RESOURCE"),
        )


def locked_memory(machine: Machine) -> Iterator[Finding]:
    """CAP_IPC_LOCK, or a limit that stops nobody."""
    _soft, hard = machine.limits("Max locked memory")
    raises = machine.has_capability(CAP_SYS_RESOURCE)
    if machine.has_capability(CAP_IPC_LOCK) or raises or hard == math.inf:
        yield good("the daemon's memory can be locked")
    else:
        yield warning(
            f"only {int(hard) >> 10} KiB of memory can be locked: the daemon may wait for pages of "
            "its own, and can have no backing",
            _run_as_root(machine, "give it CAP_IPC_LOCK or LimitMEMLOCK=infinity"),
        )


def precedence(machine: Machine) -> Iterator[Finding]:
    """CAP_SYS_NICE, or a limit that allows the least real-time priority."""
    _soft, hard = machine.limits("Max realtime priority")
    if machine.has_capability(CAP_SYS_NICE) or hard >= 1:
        yield good("the daemon can go first (SCHED_RR)")
    else:
        yield warning(
            "SCHED_RR cannot be had: when memory is short the daemon gets none of what the kernel "
            "keeps back",
            _run_as_root(machine, "give it CAP_SYS_NICE or LimitRTPRIO=1"),
        )


def files(machine: Machine) -> Iterator[Finding]:
    """RLIMIT_NOFILE."""
    soft, _hard = machine.limits("Max open files")
    if soft >= _FILES:
        yield good("enough files can be open")
    else:
        yield warning(f"only {int(soft)} files can be open", f"`ulimit -n {_FILES}`")


def container(machine: Machine) -> Iterator[Finding]:
    """Whether this is a container: it has no swap of its own."""
    users = (machine.text("proc/self/uid_map") or "").split()
    if len(users) == 3 and int(users[2]) < _ALL_USERS - 1:
        yield failure(
            "this is a user namespace, where nobody may swap",
            "run `vswap up` on its host; `vswap run` works here",
        )
    elif kind := _container(machine):
        yield warning(
            f"this is a container ({kind}): what swaps here swaps for its whole host",
            "run `vswap up` on its host",
        )
    else:
        yield good("this is no container")


def _container(machine: Machine) -> str:
    """What kind of container this is, as far as it tells; empty for none.

    The marks alone do not tell: a machine's own system may have come as a container's image.
    """
    if machine.link("proc/self/ns/pid") == _FIRST_PROCESSES:
        return ""
    if kind := machine.text("run/systemd/container"):
        return kind
    marks = {"run/.containerenv": "podman", ".dockerenv": "docker"}
    return next((kind for path, kind in marks.items() if machine.text(path) is not None), "")


def programs(machine: Machine) -> Iterator[Finding]:
    """What `up` and `down` run, and what mounts for users."""
    needed = ("losetup", "mkswap", "swapon", "swapoff")
    if missing := [name for name in needed if machine.program(name) is None]:
        yield failure(f"not installed: {', '.join(missing)}", "install util-linux and mount")
    else:
        yield good(f"installed: {', '.join(needed)}")
    helper = machine.program("fusermount3")
    if helper is None and machine.is_root:
        yield good("there is no fusermount3, which only other users than root need")
    elif helper is None:
        yield failure("there is no fusermount3, with which users mount", "install fuse3")
    elif not machine.is_root and not helper.stat().st_mode & stat.S_ISUID:
        yield failure(
            "fusermount3 does not run as root, so it cannot mount", f"`chmod u+s {helper}` as root"
        )
    else:
        yield good("installed: fusermount3")


def _run_as_root(machine: Machine, else_: str) -> str:
    return else_ if machine.is_root else f"run it as root, or {else_}"

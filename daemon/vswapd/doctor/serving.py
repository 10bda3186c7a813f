"""The devices that are there, by what their daemons say."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping

from vswapd.doctor.finding import Finding, failure, good, refusal, warning
from vswapd.doctor.machine import Machine

__all__ = ["answer", "discards", "silence"]

_DENIED = (os.strerror(errno.EACCES), os.strerror(errno.EPERM))


def silence(name: str, error: str) -> Iterator[Finding]:
    """On a device whose daemon gave no answer, but for this reason."""
    if error.endswith(_DENIED):
        yield warning(f"{name} is another user's, and cannot be asked", "look again as that user")
    else:
        yield refusal(error, f"`vswap restart {name}` starts it anew, and its log may tell why")


def answer(name: str, stats: Mapping[str, object]) -> Iterator[Finding]:
    """On a device, by its stats.json."""
    found = [*_lost(name, stats), *_replaced(name, stats), *_backing(name, stats)]
    found += _missing(name, stats)
    yield from found or [good(f"{name} answers, and has nothing to complain of")]


def discards(machine: Machine, name: str, loop: str) -> Iterator[Finding]:
    """Whether freed slots are told of, by way of a device's loop device."""
    path = f"sys/block/{loop.removeprefix('/dev/')}/queue/discard_max_bytes"
    if not machine.number(path):
        yield warning(
            f"{loop} of {name} passes no discards on: the memory of freed slots is not won back",
            "use a kernel whose loop driver does",
        )


def _lost(name: str, stats: Mapping[str, object]) -> Iterator[Finding]:
    """Pages that could not be given back, and faults of ours."""
    log = "its log tells more"
    if count := _count(stats, "failed_reads"):
        yield failure(f"{name} could not give {count} reads what was written", log)
    if count := _count(stats, "backing_corrupt"):
        yield failure(
            f"{name} found {count} units on its backing changed",
            f"`vswap backing detach --device {name}`, and look after that disk",
        )
    if count := _count(stats, "internal_errors"):
        yield failure(f"{name} failed {count} requests for a fault of its own", f"{log}; report it")


def _replaced(name: str, stats: Mapping[str, object]) -> Iterator[Finding]:
    if count := _count(stats, "worker_restarts"):
        yield warning(
            f"{name} is at its worker number {count + 1}: those before were killed, failed, or "
            "replaced",
            "its log tells which, and nothing is to be done if it was `vswap restart`",
        )


def _backing(name: str, stats: Mapping[str, object]) -> Iterator[Finding]:
    """What has gone wrong with the disk."""
    path = stats.get("backing")
    if stats.get("backing_state") == "resting":
        yield warning(
            f"{name} writes nothing to {path} for a while, since that has failed",
            "look after that disk, or whether its file system is full",
        )
    elif count := _count(stats, "backing_failed_writes"):
        yield warning(f"{name} could not write {count} times to {path}", "look after that disk")
    if count := _count(stats, "backing_failed_reads"):
        yield failure(f"{name} could not read {count} times from {path}", "look after that disk")


_PREPARED = {
    "memory_locked": "its memory is not locked",
    "io_flusher": "it may wait for its own pages (PR_SET_IO_FLUSHER)",
    "oom_protected": "the OOM killer may choose it",
    "realtime": "it does not go first (SCHED_RR)",
}


def _missing(name: str, stats: Mapping[str, object]) -> Iterator[Finding]:
    """What the machine has not allowed it (vswapd.memory.Preparation)."""
    if lacks := [text for key, text in _PREPARED.items() if stats.get(key) is False]:
        yield warning(
            f"{name} does without: {', '.join(lacks)}",
            "run it as root, with all of its capabilities",
        )


def _count(stats: Mapping[str, object], name: str) -> int:
    value = stats.get(name)
    return value if isinstance(value, int) else 0

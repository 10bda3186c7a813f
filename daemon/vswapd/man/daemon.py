"""vswapd(8): the daemon behind a device."""

from __future__ import annotations

from collections.abc import Iterator

import click

from vswapd.man import roff
from vswapd.usage import usage

__all__ = ["daemon_page"]

_DESCRIPTION = """\
The daemon that `vswap up`, `vswap serve` and `vswap run` start for a device. It serves a file,
called swap, over FUSE; the file is attached to a loop device, and the machine swaps on that. What
is written is kept compressed in memory, and, with a backing, on a disk.

Four processes serve a device: a supervisor holds the connection to the kernel, the memory that all
is stored in and the file of the backing; a worker does the work; a standby waits for its death; and
a fork server makes the next standby. A worker that dies, however, is followed within milliseconds,
and nothing is lost.
"""

_UNIT = """\
`systemctl enable --now vswap@NAME` brings up the device NAME of vswap.toml(5) with every boot. The
supervisor is the main process of that unit, has its descriptors kept by systemd, and goes on with
them when all processes were killed. `systemctl status` shows what is stored, `systemctl reload` is
`vswap restart`, and `systemctl stop` is `vswap down`. If that refuses, for want of memory, the unit
has failed and the device is in use still.
"""

_FILES = {
    "swap": "The device.",
    "stats, stats.json": "All statistics, as lines and as JSON.",
    "history.json": "Samples of the last hour and week.",
    "mm_stat, io_stat, bd_stat": "The fields of zram, in its order.",
    "metrics": "The same for Prometheus.",
    "ctl": "Write a command, and read its result. A wrong one fails with EINVAL.",
}

_LOG = """\
In /run/vswap is NAME.log too, whatever the mount. It is the log if `vswap up` has started the
daemon. If `vswap serve` has, or the unit, it is empty, and only keeps others from bringing up the
same device meanwhile: the log is stderr then, and of a unit the journal.
"""

_SIGNALS = {
    "SIGHUP": "To the supervisor: `vswap restart`, without an answer.",
    "SIGTERM": "Unmount, if nothing uses the file; else nothing: `vswap down` ends it safely.",
}

_ENVIRONMENT = {
    "NOTIFY_SOCKET": "Where systemd is told that it serves, what it holds, and its state.",
    "LISTEN_FDS, LISTEN_FDNAMES, LISTEN_PID": "The descriptors that systemd has kept.",
    "WATCHDOG_USEC": "How often systemd wants a sign of life.",
}


def daemon_page(_root: click.Group) -> Iterator[str]:
    """All but the title."""
    yield roff.section("name")
    yield f"vswapd {roff.escape('-')} the daemon behind a swap device of vswap"
    yield roff.section("description")
    yield from roff.paragraphs(_DESCRIPTION)
    yield roff.section("as a service")
    yield from roff.paragraphs(_UNIT)
    yield roff.section("commands")
    yield from roff.paragraphs("What `vswap ctl` gives to the daemon, or anybody writes to ctl:")
    for command, about in usage():
        yield from roff.definition(command, about)
    yield roff.section("signals")
    yield from _definitions(_SIGNALS)
    yield roff.section("environment")
    yield from _definitions(_ENVIRONMENT)
    yield roff.section("files")
    yield from roff.paragraphs("In the mount, which is /run/vswap/NAME by default:")
    yield from _definitions(_FILES)
    yield from roff.paragraphs(_LOG)
    yield roff.section("see also")
    yield from roff.paragraphs("vswap(1), vswap.toml(5), zram's admin guide, sd_notify(3)")


def _definitions(terms: dict[str, str]) -> Iterator[str]:
    for term, about in terms.items():
        yield from roff.definition(term, about)

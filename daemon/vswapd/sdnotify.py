"""What systemd is told, and what it keeps for us: sd_notify(3) and sd_listen_fds(3).

Descriptors that are stored with it (FileDescriptorStoreMax= of the unit) outlive the service's
processes, and are handed to the next one that is started.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping, MutableMapping
from contextlib import suppress

from vswap import memfile
from vswapd.held import Bundle, Record
from vswapd.lockholder import lock

__all__ = ["Keeper", "keeps_device", "kept_fd", "read_record", "take_listen_fds"]

_log = logging.getLogger(__name__)

_FIRST = 3
_PLACE = 64 << 10
"""Bytes for one record."""
_SEPARATOR = ":"
_PREFIX = "vswap-"


class Keeper:
    """Tells systemd, if it is there, and has it keep descriptors and the record of them."""

    def __init__(self, address: str | None) -> None:
        """`address` is $NOTIFY_SOCKET; None if nobody listens."""
        self._address = (
            None if not address else "\0" + address[1:] if address[0] == "@" else address
        )
        self.record_fd: int | None = None
        """The file of the record, in memory."""
        self._last = ""

    def adopt(self, record_fd: int) -> None:
        """From now on this is the record, and this process is one that writes to it.

        That shows by a lock, so that nobody takes the device for one whose supervisor has ended.
        """
        self.record_fd = record_fd
        lock(record_fd)

    def tell(self, *lines: str, fds: list[int] | None = None, wait: bool = True) -> None:
        """Send assignments such as ``READY=1``. What cannot be delivered is logged.

        Unless we may `wait`, nothing is said to one that does not listen: it can be swapped out,
        and be waiting for us.
        """
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
                end.setblocking(wait)
                end.connect(self._address)
                socket.send_fds(end, ["\n".join(lines).encode()], fds or [])
        except BlockingIOError:
            return
        except OSError as error:
            _log.warning("systemd cannot be told %s: %s", lines[0], error.strerror)

    def store(self, name: str, fd: int) -> None:
        """Have a descriptor kept under `name`.

        It is not to be polled: that would wake systemd with every request.
        """
        self.tell("FDSTORE=1", "FDPOLL=0", f"FDNAME={_PREFIX}{name}", fds=[fd])

    def remove(self, name: str) -> None:
        """Nothing of that name is to be kept any more."""
        self.tell("FDSTOREREMOVE=1", f"FDNAME={_PREFIX}{name}")

    def record(self, record: Record) -> None:
        """Have this kept, too: in a file in memory, in the place where the last but one was.

        A record that is cut off is none, and then the other one counts.
        """
        if self._address is None or record.to_json() == self._last:
            return
        is_first = not self._last
        self._last = record.to_json()
        if self.record_fd is None:
            self.adopt(memfile.create("record", resident=True))
        assert self.record_fd is not None
        number, _ = _latest(self.record_fd)
        line = f"{number + 1} {self._last}\n".encode()
        os.pwrite(self.record_fd, line, (number + 1) % 2 * _PLACE)
        if is_first:  # also one that was adopted: systemd may have forgotten it
            self.store("record", self.record_fd)


def read_record(fd: int) -> Record:
    """The later of the whole records in a file. Raises `ValueError` if there is none."""
    _, record = _latest(fd)
    if record is None:
        raise ValueError("no record was kept")
    return record


def _latest(fd: int) -> tuple[int, Record | None]:
    """Its number, from 1 on, and the record."""
    found: dict[int, Record] = {}
    for place in (0, _PLACE):
        line, _, _ = os.pread(fd, _PLACE, place).partition(b"\n")
        number, _, text = line.partition(b" ")
        with suppress(ValueError, TypeError, KeyError):
            found[int(number)] = Record.from_json(text)
    return max(found.items(), default=(0, None), key=lambda item: item[0])


def keeps_device(environment: Mapping[str, str]) -> bool:
    """Whether a device was kept for this process, or for the program that it becomes."""
    return kept_fd(environment, "record") is not None


def kept_fd(environment: Mapping[str, str], name: str) -> int | None:
    """The descriptor that was kept for this process by a name without our prefix, if one was."""
    return dict(reversed(_listen_fds(environment))).get(_PREFIX + name)


def take_listen_fds(environment: MutableMapping[str, str]) -> Bundle:
    """What was kept for this process, by names without our prefix; once, for the variables go.

    Descriptors that are not ours to know are left alone. Of one name the first counts, which was
    stored last; others are closed.
    """
    there = _listen_fds(environment)
    for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environment.pop(variable, None)
    found: dict[str, int] = {}
    for name, fd in there:
        os.set_inheritable(fd, False)
        if not name.startswith(_PREFIX):
            continue
        if name in found:
            os.close(fd)
        else:
            found[name] = fd
    return [(name.removeprefix(_PREFIX), fd) for name, fd in found.items()]


def _listen_fds(environment: Mapping[str, str]) -> Bundle:
    """All that were handed to this process, by their names: the newest first."""
    count = environment.get("LISTEN_FDS", "")
    if environment.get("LISTEN_PID") != str(os.getpid()) or not count.isdigit():
        return []
    names = environment.get("LISTEN_FDNAMES", "").split(_SEPARATOR)
    return list(zip(names, range(_FIRST, _FIRST + int(count)), strict=False))

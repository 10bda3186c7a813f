"""What a worker asks of its supervisor."""

from __future__ import annotations

import fcntl
import os
import select
import threading
from contextlib import suppress

from vswap.errors import UserError
from vswap.proto import abi, encode_init_reply
from vswap.store.backing_file import FileBacking
from vswapd.channel import Handshake
from vswapd.messages import Link

__all__ = ["KeptBacking", "Office"]


class Office:
    """A worker's end of the link. Any thread may use it."""

    def __init__(self, link: Link) -> None:
        """`link` is to the supervisor."""
        self._link = link
        self._lock = threading.Lock()  # one question at a time

    @property
    def is_open(self) -> bool:
        """Whether the supervisor is there."""
        poll = select.poll()
        poll.register(self._link.fileno(), 0)  # for its end alone
        return not poll.poll(0)

    def keep_handshake(self, agreed: Handshake) -> None:
        """Have it kept for those to come: the kernel does not repeat it."""
        unique = abi.IN_HEADER.unpack_from(agreed.raw)[2]
        reply = encode_init_reply(unique, agreed.reply)
        self._link.send("agreed", init=agreed.raw.hex(), reply=reply.hex())

    def keep_history(self, fd: int) -> None:
        """Have the memory of the history kept for workers to come."""
        self._link.send("history", [fd])

    def serving(self, threads: list[int]) -> None:
        """Tell that requests are being answered, by these threads."""
        self._link.send("serving", threads=threads)

    def closed(self) -> None:
        """Tell that the connection has closed."""
        self._link.send("closed")

    def open_backing(self, path: str) -> KeptBacking:
        """A backing that a successor will have, too. Raises `UserError`, also if nobody keeps it.

        What would be written to a file that only this process has open would die with it.
        """
        checked = FileBacking.open(path)
        try:
            with self._lock:
                held = self._link.send("hold", [checked.fileno()], path=path)
                if not held or self._link.receive() is None:
                    raise UserError("the supervisor is gone: no backing can be attached")
            return KeptBacking(os.dup(checked.fileno()), path, self)
        finally:
            checked.close()

    def kept_backing(self, fd: int, path: str) -> KeptBacking | None:
        """The backing that a predecessor had attached.

        None if that had let go of it, and another device has it by now.
        """
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            self.drop_backing()
            return None
        return KeptBacking(fd, path, self)

    def drop_backing(self) -> None:
        """It need not be kept any more."""
        with self._lock:
            self._link.send("drop")


class KeptBacking(FileBacking):
    """A backing whose file the supervisor has open, too, for as long as it is attached."""

    def __init__(self, fd: int, name: str, office: Office) -> None:
        """As `FileBacking`."""
        super().__init__(fd, name)
        self._office = office

    def close(self) -> None:
        """The supervisor lets go of it, too.

        The lock goes first, for all who share it: another device may have a file at once, also
        if this process dies now and the kernel takes its time to close what it had open. (A block
        device is claimed until it has.) A successor that has not heard of it locks it again.
        """
        try:
            with suppress(OSError):
                fcntl.flock(self.fileno(), fcntl.LOCK_UN)
            self._office.drop_backing()
        finally:
            super().close()

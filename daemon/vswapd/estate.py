"""The estate: what a device's workers leave to each other, and the mount that shows it.

Kept by the supervisor, and by systemd where it stores descriptors. Whatever changes in it is
recorded before anybody relies on it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from vswap.errors import UserError
from vswapd import fusemount, mounts
from vswapd.held import Held, Record
from vswapd.messages import Message
from vswapd.sdnotify import Keeper

__all__ = ["Estate"]

_RESIDENT_SECONDS = 1.0

_log = logging.getLogger(__name__)


class Estate:
    """Of one device."""

    def __init__(self, record: Record, keeper: Keeper) -> None:
        """Nothing is held yet: the device is to be made as `record` says."""
        self._record = record
        self.keeper = keeper
        self.held: Held | None = None

    @property
    def record(self) -> Record:
        """What is known of the device."""
        return self._record if self.held is None else self.held.record

    def is_to_be(self, settings: str, point: str) -> None:
        """These are the settings, checked, if the device is not there yet."""
        self._record = Record(settings, point)

    def make(self, state: Sequence[int], message: Message) -> None:
        """Mount, for a state that a worker has made. Raises `UserError`."""
        held = Held(self._record, state)
        held.note(region=message["region"], signs=tuple(message["signs"]))
        try:
            point = mounts.resolve(self._record.point)
            held.connection = fusemount.open_and_mount(point, self.name, self._as_user)
        except OSError as error:
            raise UserError(f"cannot mount on {self._record.point}: {error.strerror}") from None
        held.note(point=point, mounted=mounts.top_mount(point))
        self.hold(held)

    def hold(self, held: Held) -> None:
        """This is the device: have it kept."""
        self.held = held
        for name, fd in held.bundle():
            self.keeper.store(name, fd)
        self.keeper.record(held.record)

    def hear(self, message: Message, fds: list[int]) -> bool:
        """The worker wants something held, or not any more; whether it waits for an answer."""
        word, held = message["is"], self.held
        assert held is not None
        if word == "agreed":
            self.note(init=message["init"], reply=message["reply"])
        elif word == "hold":
            self.keeper.store("backing", fds[0])
            held.hold_backing(fds[0], message["path"])
            self.keeper.record(held.record)
            return True
        elif word == "history":
            if held.history is not None:  # of code that has laid it out in another way
                self.keeper.remove("history")
            self.keeper.store("history", fds[0])
            held.hold_history(fds[0])
        elif word == "drop":
            held.drop_backing()
            self.keeper.record(held.record)
            self.keeper.remove("backing")
        return False

    def note(self, **changes: Any) -> None:  # noqa: ANN401 - what Record has
        """Change the record."""
        assert self.held is not None
        self.held.note(**changes)
        self.keeper.record(self.held.record)

    @property
    def is_open(self) -> bool:
        """Whether there is a connection that requests can come from."""
        return self.held is not None and self.held.connection is not None

    @property
    def is_closed(self) -> bool:
        """Whether there was one, and it is no more."""
        return self.held is not None and self.is_open and self.held.is_closed()

    # --- The mount ------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The device's."""
        return str(self._record.values["name"])

    @property
    def _as_user(self) -> bool:
        return bool(self._record.values.get("allow_fusermount"))

    def unmount(self) -> None:
        """End everything by unmounting, or say why not. It can come to wait for a worker."""
        try:
            fusemount.unmount(self.record.point, self._as_user)
        except OSError as error:
            _log.warning(
                "%s goes on being served (%s): `vswap down %s` ends it safely",
                self.record.point,
                error.strerror,
                self.name,
            )

    def detach(self) -> None:
        """The connection has closed: no dead mount is left, and none that is another's touched.

        At once: later the place may be a successor's.
        """
        point, mounted = self.record.point, self.record.mounted
        if mounted is None:
            return
        if self.held is not None:
            self.held.note(mounted=None)
        if mounts.top_mount(point) == mounted:
            with suppress(OSError):
                fusemount.unmount(point, self._as_user, lazy=True)

    def forget(self) -> None:
        """The device is no more: nobody need keep anything."""
        self.detach()
        if self.held is not None:
            for name, _ in [*self.held.bundle(), ("record", None)]:
                self.keeper.remove(name)

    def keep_resident(self, ended: threading.Event) -> None:
        """Keep what is held in memory, until it has ended.

        For a thread of its own: a look at all memory takes a while, and a death must not wait.
        """
        while not ended.wait(_RESIDENT_SECONDS):
            if self.held is not None:
                self.held.keep_resident()

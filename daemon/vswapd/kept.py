"""What systemd has kept: the device to go on with, or what is left of one that is no more."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from contextlib import suppress

from vswap.errors import UserError
from vswapd.ending import is_ending
from vswapd.estate import Estate
from vswapd.held import Held, is_closed
from vswapd.lockholder import lock_holders
from vswapd.sdnotify import Keeper, kept_fd, read_record, take_listen_fds

__all__ = ["clear_away", "rival", "take_device"]


def rival(environment: Mapping[str, str]) -> int | None:
    """The supervisor that has what was kept for this process; None if it has ended, as it should.

    One that was asked to end does not while its device is in use; then systemd can come to
    start another beside it.
    """
    record_fd = kept_fd(environment, "record")
    return None if record_fd is None else _writer(record_fd)


def clear_away(environment: MutableMapping[str, str], keeper: Keeper) -> None:
    """Leave nothing of a device whose connection has closed: neither descriptors nor a dead mount.

    Else systemd would hand them out again beside those of the next device. Nor of one that was
    never complete. One that can be gone on with is not touched.
    """
    connection = kept_fd(environment, "fuse")
    record_fd = kept_fd(environment, "record")
    if connection is not None and record_fd is not None and not is_closed(connection):
        return
    bundle = take_listen_fds(environment)
    with suppress(ValueError):  # no record: then nothing tells where it was mounted
        if record_fd is not None:
            Estate(read_record(record_fd), keeper).detach()
    for name, fd in bundle:
        keeper.remove(name)
        os.close(fd)


def take_device(environment: MutableMapping[str, str], keeper: Keeper) -> Held | None:
    """The device to go on with, and its record as `keeper`'s; None if none was kept.

    Raises `UserError` if a supervisor has it still, and `ValueError` for what is no device.
    """
    kept = dict(take_listen_fds(environment))
    record_fd = kept.pop("record", None)
    if record_fd is None:
        return None
    keeper.adopt(record_fd)
    record = read_record(record_fd)
    other = _writer(record_fd)
    if other is not None:
        name = record.values["name"]
        raise UserError(
            f"a supervisor (process {other}) serves {name} already; `vswap restart {name}` "
            f"replaces it, `vswap down {name}` ends it"
        )
    return Held.of(record, list(kept.items()))


def _writer(record_fd: int) -> int | None:
    """Another process that writes to the record, and is not ending."""
    return next((pid for pid in lock_holders(record_fd) if not is_ending(pid)), None)

"""What `vswap up` is to do for one device, made of values by the names of KEYS, and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from vswap.errors import UserError
from vswapd.cli.options import StoreOptions, backing_room, make_settings
from vswapd.cli.place import default_mount
from vswapd.config import Settings
from vswapd.confkeys import KEYS, Value
from vswapd.swapdev import MIN_SWAP_SIZE

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True)
class Plan:
    """A device, and what is done with it. `room` is bytes that a backing file is to have at least.

    `priority` None is left to the kernel.
    """

    settings: Settings
    room: int | None
    priority: int | None
    swapon: bool
    tune: bool


def make_plan(name: str, values: Mapping[str, Value]) -> Plan:
    """The plan for a device by these values; what is not among them has its default.

    Raises `UserError` for the first thing that is wrong.
    """
    options = {key.option: values.get(key.name, key.default) for key in KEYS.values()}
    mount, priority, swapon, tune = (
        options.pop(other) for other in ("mount", "priority", "swapon", "tune")
    )
    typed = cast(StoreOptions, options)
    point = default_mount(name) if mount is None else cast(str, mount)
    settings = make_settings(point, typed, name=name)
    if swapon and settings.size < MIN_SWAP_SIZE:
        raise UserError(f"size must be at least 40 KiB for swap, not {settings.size} bytes")
    return Plan(
        settings=settings,
        room=backing_room(typed, settings.size),
        priority=cast("int | None", priority),
        swapon=bool(swapon),
        tune=bool(tune),
    )

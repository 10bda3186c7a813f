"""What else swaps on this machine, and gets in the way."""

from __future__ import annotations

from collections.abc import Iterator

from vswapd.doctor.finding import Finding, good, warning
from vswapd.doctor.machine import Machine
from vswapd.swapdev import SwapArea

__all__ = ["other_swap", "zswap"]

_ZSWAP = "sys/module/zswap/parameters/enabled"
_MAX_PRIORITY = 32767


def zswap(machine: Machine) -> Iterator[Finding]:
    """Whether the kernel compresses pages before they come to us."""
    if machine.text(_ZSWAP) in ("Y", "1"):
        yield warning(
            "zswap is enabled: every page is compressed by it first, and handled twice",
            f"`echo N > /{_ZSWAP}`, and zswap.enabled=0 on the kernel's command line",
        )
    else:
        yield good("zswap is not enabled")


def other_swap(machine: Machine) -> Iterator[Finding]:
    """Swap that is not ours, by its priority."""
    ours = set(machine.own_loops())
    areas = machine.swaps() or []
    others = [area for area in areas if area.path not in ours]
    mine = [area.priority for area in areas if area.path in ours]
    if not others:
        yield good("there is no other swap")
    for area in others:
        yield _beside(area, min(mine) if mine else None)


def _beside(area: SwapArea, ours: int | None) -> Finding:
    """On one area beside ours, whose priority is given if there is one."""
    kind = "zram" if area.path.startswith("/dev/zram") else "swap"
    name = f"{area.path} is {kind} with priority {area.priority}"
    if ours is not None and ours > area.priority:
        if kind == "zram":
            return warning(
                f"{name}: compressed memory twice, each with a limit of its own",
                f"`swapoff {area.path}`, and disable what sets it up",
            )
        return good(f"{name}, which is filled after ours ({ours})")
    if ours is None:
        state = f"{name}: `vswap up` by itself comes after it"
    elif ours == area.priority:
        state = f"{name}, as ours: both are filled in turn"
    else:
        state = f"{name}, and ours has {ours}: it is filled first"
    return warning(state, _ahead_of(area, is_up=ours is not None))


def _ahead_of(area: SwapArea, *, is_up: bool) -> str:
    """How ours comes to be filled first; `up` does not change one that is up already."""
    if area.priority >= _MAX_PRIORITY:
        return f"`swapoff {area.path}`, or give it a lower priority than {_MAX_PRIORITY}"
    wanted = max(100, area.priority + 1)
    up = f"`vswap up --priority {wanted}`"
    if is_up:
        up = f"`vswap down`, and `vswap up` again with `--priority {wanted}`"
    return f"`swapoff {area.path}`, or {up}"

"""Settings of the kernel: those that `up` changes (vswapd/tuning.py), and those that are left."""

from __future__ import annotations

from collections.abc import Iterator

from vswapd.doctor.finding import Finding, good, warning
from vswapd.doctor.machine import Machine
from vswapd.tuning import knobs

__all__ = ["overcommit", "swappiness", "tuned"]

_LOW = 60  # the kernel's default
_SENSIBLE = 100
_WIDER = (5, 8)  # from when on it goes to 200


def tuned(machine: Machine) -> Iterator[Finding]:
    """What `up` sets while a device is up."""
    in_use = any(True for _ in machine.own_loops())
    for knob in knobs(machine.root):
        name = str(knob.path.relative_to(machine.root))
        now = machine.number(name)
        if now is None or not knob.is_of_use():
            continue
        if knob.suits(now):
            yield good(f"{knob.path.name} is {now}")
        elif in_use:
            yield warning(
                f"{knob.path.name} is {now}, though a device is up",
                f"`echo {knob.value} > /{name}`",
            )
        else:
            yield good(f"{knob.path.name} is {now}; `vswap up` makes it {knob.value} for its time")


def swappiness(machine: Machine) -> Iterator[Finding]:
    """Whether the kernel swaps before it has given up its caches."""
    now = machine.number("proc/sys/vm/swappiness")
    wider = machine.version >= _WIDER
    best = "100 to 180" if wider else "100"
    if now is None:
        yield good("vm.swappiness is not known here")
    elif now < _LOW:
        yield warning(
            f"vm.swappiness is {now}: files are dropped from memory long before anything is "
            "swapped out",
            f"`sysctl vm.swappiness={_SENSIBLE}` ({best} suit compressed memory)",
        )
    elif now < _SENSIBLE:
        yield good(f"vm.swappiness is {now}; {best} would suit compressed memory")
    else:
        yield good(f"vm.swappiness is {now}")


def overcommit(machine: Machine) -> Iterator[Finding]:
    """Whether the kernel promises only memory that is there."""
    if machine.number("proc/sys/vm/overcommit_memory") == 2:
        yield warning(
            "vm.overcommit_memory is 2: the device counts as memory that can be promised, and the "
            "memory behind it does not",
            "`sysctl vm.overcommit_memory=0`, or a lower vm.overcommit_ratio",
        )
    else:
        yield good("memory may be promised that is not there (vm.overcommit_memory)")

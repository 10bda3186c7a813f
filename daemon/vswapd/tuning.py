"""Settings of the kernel that a swap device gains much from: set by `up`, put back by `down`.

===================  ========================================================================
vm.page-cluster      swap-in reads ahead up to 2^N pages, in a window that shrinks when they are
                     not used, so random access is not made slower (mm/swap_state.c, where 5
                     is the most that counts). With the default of 3 a sequential reader waits
                     for the daemon four times as often as with 5.
guest_halt_poll_ns   for up to so many ns an idle processor of a guest looks for work before it
                     halts (drivers/cpuidle/governors/haltpoll.c). At 0 it halts at once, and
                     what waits for the daemon is woken some 25 us later than it could be.
watermark_           every mark below which memory counts as short is raised by as much as 1.5 times
boost_factor         the highest when free pages are scattered, until kswapd has gone over it
                     (mm/page_alloc.c, boost_watermark). The loop device's thread gets no page below
                     the mark, and kswapd waits for that thread: seen to hang guests of 320 MiB.
watermark_           what lies between the marks, in ten-thousandths of memory: as much as makes
scale_factor         4 MiB. So kswapd begins, and has free pages, before all others wait for it.
===================  ========================================================================

They belong to the machine and not to one device, so the first device sets them and the last
puts them back. In between, two files in the run directory tell what is to be done:

* `tuning.json` names the devices that want it, and for each setting what it was before and
  what it was set to. It is written before a setting is, and goes after all are put back:
  whenever we are killed, the next `down` has what it needs. One that is still, or again, what
  it was before needs nothing; any other value than ours is somebody else's, and stays.
* `tuning.lock` is held by whoever changes anything. It goes with the other, so one that waited
  for it looks whether what it got is still the file of that name.

A device that is named but no longer mounted (its daemon died, and somebody unmounted it)
does not count, and keeps nothing in force.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from vswap.errors import UserError
from vswapd.mounts import devices
from vswapd.sizes import machine_memory

__all__ = ["KNOBS", "Knob", "knobs", "raised", "restore", "tune"]

_STATE = "tuning.json"
_NEW_STATE = "tuning.json.new"
_LOCK = "tuning.lock"
_BETWEEN_MARKS = 4 << 20
_FILES = (_STATE, _NEW_STATE, _LOCK)


@dataclass(frozen=True)
class Knob:
    """A file of the kernel's that holds a number, which is to be `value` at least, or at `most`.

    `only_if` is a file and the line it has to hold for that to be of any use.
    """

    path: Path
    value: int
    only_if: tuple[Path, str] | None = None
    most: bool = False

    def is_of_use(self) -> bool:
        """Whether this machine is one that gains by it. Raises `OSError`."""
        if self.only_if is None:
            return True
        file, line = self.only_if
        try:
            return file.read_text().strip() == line
        except FileNotFoundError:
            return False

    def suits(self, now: int) -> bool:
        """Whether nothing is to be done."""
        return now <= self.value if self.most else now >= self.value


def knobs(root: Path = Path("/")) -> tuple[Knob, ...]:
    """What is tuned, in a file system that begins at `root`."""
    halt_poll_ns = root / "sys/module/haltpoll/parameters/guest_halt_poll_ns"
    governor = root / "sys/devices/system/cpu/cpuidle/current_governor"
    return (
        Knob(root / "proc/sys/vm/page-cluster", 5),
        Knob(halt_poll_ns, 200_000, only_if=(governor, "haltpoll")),  # the kernel's own default
        Knob(root / "proc/sys/vm/watermark_boost_factor", 0, most=True),
        Knob(root / "proc/sys/vm/watermark_scale_factor", _scale_factor()),
    )


def _scale_factor() -> int:
    enough = -(-10_000 * _BETWEEN_MARKS // machine_memory())
    return min(enough, 1000)  # which is the most that it takes


KNOBS = knobs()


@dataclass(frozen=True)
class _Change:
    """What a setting was and what it was set to."""

    before: int
    ours: int


@dataclass(frozen=True)
class _State:
    """Who wants it, and the changes by the path of what was changed."""

    devices: frozenset[str]
    changes: Mapping[str, _Change]


def raised(wanted: tuple[Knob, ...] = KNOBS) -> dict[Path, int]:
    """What `tune` would set on this machine as it is, by path. Raises `OSError`."""
    changes, _ = _plan(wanted, {})
    return {Path(path): change.ours for path, change in changes.items()}


def tune(directory: Path, device: str, wanted: tuple[Knob, ...] = KNOBS) -> list[str]:
    """Set what is not as `wanted` until `restore` is called for the last device.

    `directory` is there and keeps the record. A setting that this kernel lacks is passed
    over; one that may not be changed is left, and named in a line of what is returned.
    Raises `OSError` and `UserError` when nothing can be recorded, and then changes nothing.
    """
    with _locked(directory):
        state = _load(directory)
        changes, problems = _plan(wanted, state.changes)
        names = state.devices & _present() | {device}
        _save(directory, _State(names, {**state.changes, **changes}))
        made = {}
        for path, change in changes.items():
            try:
                Path(path).write_text(str(change.ours))
                made[path] = change
            except OSError as error:
                problems.append(_stays(path, error))
        if made != changes:
            _save(directory, _State(names, {**state.changes, **made}))
    return problems


def restore(directory: Path, device: str) -> list[str]:
    """Put back what `tune` has set, unless other devices than this one still want it.

    Returns a line for each setting that has another value than ours by now, or cannot be
    put back; it is left alone. Removes `directory` when nothing else is in it. Raises
    `OSError` and `UserError` when the record cannot be used.
    """
    if not any((directory / name).exists() for name in _FILES):
        return []
    with _locked(directory):
        state = _load(directory)
        if others := state.devices & _present() - {device}:
            _save(directory, _State(others, state.changes))
            return []
        notes = [_put_back(Path(path), change) for path, change in state.changes.items()]
        for name in _FILES:  # the lock last: without it others may begin
            (directory / name).unlink(missing_ok=True)
    with suppress(OSError):  # a log or a mount point is in it
        directory.rmdir()
    return list(filter(None, notes))


def _plan(
    wanted: tuple[Knob, ...], known: Mapping[str, _Change]
) -> tuple[dict[str, _Change], list[str]]:
    """What is to be changed, by path, and a line for each setting that cannot be read.

    `known` tells what a setting was before ours, if ours is what it is now.
    """
    changes: dict[str, _Change] = {}
    problems = []
    for knob in wanted:
        path = str(knob.path)
        try:
            if knob.is_of_use() and not knob.suits(now := _value(knob.path)):
                earlier = known.get(path)
                before = earlier.before if earlier and earlier.ours == now else now
                changes[path] = _Change(before, knob.value)
        except FileNotFoundError:  # not in this kernel
            continue
        except OSError as error:
            problems.append(_stays(path, error))
        except ValueError:
            problems.append(f"{path} stays as it is: it does not hold a number")
    return changes, problems


def _stays(path: str, error: OSError) -> str:
    return f"{path} stays as it is: {error.strerror}"


def _present() -> set[str]:
    """The names of the devices that are mounted."""
    return {each.name for each in devices()}


def _value(path: Path) -> int:
    return int(path.read_text())


def _put_back(path: Path, change: _Change) -> str | None:
    """Undo one change. Returns why not, in a line, if there is something to be said."""
    try:
        now = _value(path)
        if now == change.ours:
            path.write_text(str(change.before))
        elif now != change.before:
            return f"{path} is {now} by now, not the {change.ours} that it was set to; left alone"
    except FileNotFoundError:  # its module was unloaded
        return None
    except OSError as error:
        return f"{path} cannot be set back to {change.before}: {error.strerror}"
    return None


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the lock while the block runs. Raises `OSError`."""
    path = directory / _LOCK
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if _is_at(fd, path):
                yield
                return
        finally:
            os.close(fd)


def _is_at(fd: int, path: Path) -> bool:
    """Whether the file is still what is found at `path`."""
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


def _load(directory: Path) -> _State:
    """The record; an empty one if there is none. Raises `UserError` if it makes no sense."""
    path = directory / _STATE
    try:
        found = json.loads(path.read_text())
        changes = {
            each: _Change(int(values["before"]), int(values["ours"]))
            for each, values in found["changes"].items()
        }
        return _State(frozenset(found["devices"]), changes)
    except FileNotFoundError:
        return _State(frozenset(), {})
    except (ValueError, TypeError, LookupError, AttributeError):
        raise UserError(f"{path} makes no sense; look at it, and remove it") from None


def _save(directory: Path, state: _State) -> None:
    """Replace the record as a whole. Raises `OSError`."""
    changes = {path: asdict(change) for path, change in state.changes.items()}
    text = json.dumps({"devices": sorted(state.devices), "changes": changes}, indent=2)
    new = directory / _NEW_STATE
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(new, flags, 0o644), "w") as file:  # noqa: PTH123  # for its flags
        file.write(text + "\n")
    new.replace(directory / _STATE)

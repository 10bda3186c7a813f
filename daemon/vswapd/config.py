"""What one device is asked to be, checked in one place.

A `Settings` that exists is valid: whatever made it (the command line, the JSON that a
worker is started with), a mistake is a `UserError` whose one line names the setting, the
value that is wrong and what would be right.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import PurePath

from vswap.errors import UserError
from vswap.geometry import PAGE_SIZE, SEGMENT_SHIFT, Geometry
from vswapd.paths import check_path
from vswapd.sizes import machine_memory, parse_size

__all__ = [
    "CODECS",
    "MANY",
    "MAX_SPIN_US",
    "MAX_THREADS",
    "MAX_WATCHDOG",
    "UNIT_PAGES",
    "Settings",
    "check_backed",
    "check_backing_size",
    "check_name",
    "default_spares",
    "device_name",
    "least_memory_limit",
    "parse_size",
]

CODECS = ("lz4", "zstd-fast", "zstd", "stored")
UNIT_PAGES = (1, 2, 4, 8, 16)
MAX_THREADS = 64
MAX_SPIN_US = 10_000
MAX_WATCHDOG = 3600
DEFAULT_MAX_THREADS = 4
MANY = 2
"""Spares: a standby, and a process that forks the next one."""
_MANY_FROM = 2 << 30
_ONE_FROM = 300 << 20
"""Bytes of memory in a machine, as the kernel counts them, that has so many spares by default."""
MAX_WRITEBACK_LIMIT = (1 << 62) - 1  # vswap.store.budget.MAX_LIMIT

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_NAME_MAX_CHARS = 200  # the log's name is longer, and may have 255
_OUR_FILES = re.compile(r".*\.log|tuning\..*")  # in /run/vswap, where devices are mounted too


def default_spares(memory: int) -> int:
    """How many spares a device has by default on a machine with so many bytes of memory."""
    return (memory >= _ONE_FROM) + (memory >= _MANY_FROM)


def device_name(mount: str) -> str:
    """The device's name: the last component of its mount point. `UserError` if it is none."""
    name = PurePath(mount).name
    check_name(name, f"mount point {mount!r}")
    return name


@dataclass(frozen=True)
class Settings:
    """One device. `size` and `memory_limit` in bytes, `spin_us` in microseconds.

    `threads` 0 becomes the number of processors this process may use, at most 4. `backing` is the
    absolute path of a file or block device that is there, None for none. `writeback_limit` is the
    most that is written to it in a day, in units of 4 KiB: 0 for no limit, None for what the label
    of the backing says.
    `unit_pages` is the most pages that are compressed together. `allow_fusermount` mounts
    through fusermount3, for a process that is not root. Without `clean` nothing is cleaned or
    moved down in the background, and without `loaded_first` pages that were read are not the
    first to be; both are for measuring what that gains. A worker that answers nothing for
    `watchdog` seconds while requests wait is replaced; 0 is never. `spares` are kept for a worker's
    end: 2, a standby and what forks the next one; 1, a standby; 0, nothing. None becomes what the
    machine has memory for. Raises `UserError`.
    """

    name: str
    mount: str
    size: int
    codec: str = "zstd-fast"
    unit_pages: int = 4
    threads: int = 0
    spin_us: int = 50
    memory_limit: int | None = None
    allow_fusermount: bool = False
    clean: bool = True
    loaded_first: bool = True
    backing: str | None = None
    writeback_limit: int | None = None
    watchdog: int = 30
    spares: int | None = None

    def __post_init__(self) -> None:
        """Resolve the defaults that depend on the machine, then check every setting."""
        if self.threads == 0:
            usable = len(os.sched_getaffinity(0))
            object.__setattr__(self, "threads", min(usable, DEFAULT_MAX_THREADS))
        if self.spares is None:
            object.__setattr__(self, "spares", default_spares(machine_memory()))
        Geometry(self.size)
        for check in _CHECKS:
            check(self)

    @property
    def is_small(self) -> bool:
        """Whether memory is saved where that costs time, and had early what must be had."""
        return self.spares != MANY

    def to_json(self) -> str:
        """One line that `from_json` turns back into an equal value."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """The settings in `text`. Raises `UserError` for anything that holds none."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"settings are not JSON: {error}") from None
        if not isinstance(values, dict):
            raise UserError("settings must be a JSON object")
        _check_fields(values)
        return cls(**values)


# What JSON value each field takes. bool is an int to Python, so types are compared exactly.
_TYPES: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "mount": (str,),
    "size": (int,),
    "codec": (str,),
    "unit_pages": (int,),
    "threads": (int,),
    "spin_us": (int,),
    "memory_limit": (int, type(None)),
    "allow_fusermount": (bool,),
    "clean": (bool,),
    "loaded_first": (bool,),
    "backing": (str, type(None)),
    "writeback_limit": (int, type(None)),
    "watchdog": (int,),
    "spares": (int, type(None)),
}
_REQUIRED = ("name", "mount", "size")
assert list(_TYPES) == [field.name for field in fields(Settings)]


def _check_fields(values: dict[str, object]) -> None:
    for key in _REQUIRED:
        if key not in values:
            raise UserError(f"settings lack {key!r}")
    for key, value in values.items():
        if key not in _TYPES:
            raise UserError(f"settings know no {key!r}")
        if type(value) not in _TYPES[key]:
            raise UserError(f"settings hold a {type(value).__name__} for {key!r}: {value!r}")


def check_name(name: str, of: str) -> None:
    """Raise `UserError` unless a device may be called `name`, which comes `of` this."""
    if len(name) > _NAME_MAX_CHARS:
        raise UserError(f"a device's name may have {_NAME_MAX_CHARS} characters, not {len(name)}")
    if not _NAME.fullmatch(name) or not name.strip("."):
        raise UserError(
            f"{of} gives no usable name; its last part may hold only letters, digits, _ . and -"
        )
    if _OUR_FILES.fullmatch(name):
        raise UserError(f"{of} has the name of one of vswap's own files; choose another")


def _check_mount(settings: Settings) -> None:
    check_name(settings.name, f"device name {settings.name!r}")
    check_path(settings.mount, "mount point")


def _check_codec(settings: Settings) -> None:
    if settings.codec not in CODECS:
        raise UserError(f"unknown codec {settings.codec!r}; choose one of {', '.join(CODECS)}")


def _check_numbers(settings: Settings) -> None:
    if settings.unit_pages not in UNIT_PAGES:
        choices = ", ".join(map(str, UNIT_PAGES))
        raise UserError(f"unit-pages must be one of {choices}, not {settings.unit_pages}")
    if not 1 <= settings.threads <= MAX_THREADS:  # 0 is none by now
        raise UserError(f"threads must be from 0 to {MAX_THREADS}, not {settings.threads}")
    if not 0 <= settings.spin_us <= MAX_SPIN_US:
        raise UserError(f"spin-us must be from 0 to {MAX_SPIN_US}, not {settings.spin_us}")
    if not 0 <= (settings.spares or 0) <= MANY:
        raise UserError(f"spares must be from 0 to {MANY}, not {settings.spares}")
    if not 0 <= settings.watchdog <= MAX_WATCHDOG:
        raise UserError(f"watchdog must be from 0 to {MAX_WATCHDOG}, not {settings.watchdog}")


def _check_memory_limit(settings: Settings) -> None:
    limit = settings.memory_limit
    if limit is None:
        return
    if limit < (least := least_memory_limit(settings)):
        raise UserError(
            f"memory-limit must be at least {-(-least >> 20)}M with this size and "
            f"{settings.threads} threads, not {limit} bytes"
        )


def least_memory_limit(settings: Settings) -> int:
    """The least memory limit, in bytes, with which a device of this size and threads works."""
    # Here, for most commands need no store, and importing it takes longer than they do.
    from vswap.proto.abi import MAX_WRITE  # noqa: PLC0415
    from vswap.store import Shape, least_memory, segments_for  # noqa: PLC0415

    geometry, threads = Geometry(settings.size), settings.threads
    buffer_size = PAGE_SIZE + MAX_WRITE  # channel.BUFFER_SIZE, which commands do not import
    return least_memory(Shape(geometry, segments_for(geometry, threads), threads, buffer_size))


def check_backing_size(size: int, device_size: int, what: str = "size") -> None:
    """Raise `UserError` if a backing has more bytes than a device of `device_size` can use.

    `what` names the setting in the error.
    """
    from vswap.store import Shape  # noqa: PLC0415  # as above

    shape = Shape(Geometry(device_size), segments=0, buffers=0, buffer_size=0)
    most = shape.backing_segments << SEGMENT_SHIFT
    if size > most:
        raise UserError(
            f"{what} must be at most {most >> 20}M, which is all that this device could use, not "
            f"{size} bytes"
        )


def check_backed(backing: str | None, value: object, what: str) -> None:
    """Raise `UserError` for a `value` of the setting `what` if there is no backing for it."""
    if backing is None and value is not None:
        raise UserError(f"{what} is nothing without backing; name its file too")


def _check_backing(settings: Settings) -> None:
    backing, limit = settings.backing, settings.writeback_limit
    if limit is not None and not 0 <= limit <= MAX_WRITEBACK_LIMIT:
        raise UserError(
            f"writeback-limit must be from 0 to {MAX_WRITEBACK_LIMIT} units of 4 KiB, not {limit}"
        )
    check_backed(backing, limit, "writeback-limit")
    if backing is None:
        return
    check_path(backing, "backing")
    if PurePath(backing).is_relative_to(settings.mount):
        raise UserError(
            f"backing {backing!r} lies at the mount point, which hides it; choose another place"
        )


_CHECKS: tuple[Callable[[Settings], None], ...] = (
    _check_mount,
    _check_codec,
    _check_numbers,
    _check_memory_limit,
    _check_backing,
)

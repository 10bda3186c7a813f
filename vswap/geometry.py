"""Sizes that everything agrees on, and the shape of one device.

=========  ==========  =====================================================
page       4096 B      what is stored, zeroed and freed as a whole
slot       one page    a page's place on the device, counted from 0
cluster    512 slots   what one page of the swap table describes
segment    1 MiB       a piece of the log
=========  ==========  =====================================================
"""

from __future__ import annotations

from dataclasses import dataclass

from vswap.errors import UserError

__all__ = [
    "CLUSTER_SHIFT",
    "CLUSTER_SLOTS",
    "MAX_DEVICE_SIZE",
    "MAX_UNIT_PAGES",
    "PAGE_SHIFT",
    "PAGE_SIZE",
    "SEGMENT_SHIFT",
    "SEGMENT_SIZE",
    "ZERO_PAGE",
    "Geometry",
    "zeros",
]

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT
CLUSTER_SHIFT = 9
CLUSTER_SLOTS = 1 << CLUSTER_SHIFT
SEGMENT_SHIFT = 20
SEGMENT_SIZE = 1 << SEGMENT_SHIFT
MAX_UNIT_PAGES = 16
MAX_DEVICE_SIZE = 16 << 40  # 2**32 slots: a slot number fits the unit header's 32 bits


def zeros(size: int) -> bytes:
    """Zeros in memory that has been written to, fit to be sent.

    Unwritten memory (`bytes(size)` may be) is the kernel's one page of zeros, and no system call
    gets at that without taking a page fault for it. If the process is killed just then, the call
    fails, and a request that was being answered fails with it (`fuse_dev_do_write()`: EIO).
    """
    return b"\0" * size


ZERO_PAGE = zeros(PAGE_SIZE)


@dataclass(frozen=True)
class Geometry:
    """The shape of one device. `size` is in bytes.

    Raises `UserError` for a size that is no whole number of pages from 1 to 2**32.
    """

    size: int

    def __post_init__(self) -> None:
        """Refuse sizes that no device can have."""
        if self.size <= 0:
            raise UserError(f"size must be more than zero, not {self.size}")
        if self.size % PAGE_SIZE:
            raise UserError(f"size must be a multiple of 4 KiB, and {self.size} bytes is not")
        if self.size > MAX_DEVICE_SIZE:
            raise UserError(f"size must be at most 16 TiB, not {self.size} bytes")

    @property
    def slots(self) -> int:
        """Pages on the device."""
        return self.size >> PAGE_SHIFT

    @property
    def clusters(self) -> int:
        """Clusters on the device; the last may be partly beyond its end."""
        return -(-self.slots >> CLUSTER_SHIFT)

"""What commands do with a store's backing: attach, grow, detach, write back, limit, look."""

from __future__ import annotations

from vswap.errors import UserError
from vswap.geometry import SEGMENT_SIZE
from vswap.store.backing import BLOCK, Backing
from vswap.store.parts import Parts
from vswap.store.select import Selection
from vswap.store.stats import BackingStatistics
from vswap.store.upkeep import Upkeep

__all__ = ["BackingDesk"]


class BackingDesk:
    """The backing of one store. Any thread may use it."""

    def __init__(self, parts: Parts, upkeep: Upkeep) -> None:
        """There is none yet."""
        self._disk = parts.disk
        self._upkeep = upkeep

    def attach(self, backing: Backing, *, again: bool = False) -> None:
        """Write back to it from now on. Raises `UserError` if there is one already, `OSError`.

        It belongs to the store then. Of a larger one than the store could ever fill a part is used.
        If an earlier worker has left pages on disk it must be the one that they are on; and if it
        was being detached, that goes on. `UserError` if it is too small to be it; but not if it is
        known to be it, which `again` says.
        """
        with self._upkeep.lock:
            self._upkeep.jobs.prepare_to_spill()
            self._disk.attach(backing, again=again)
            self._upkeep.detach.resume()

    def grow(self, size: int) -> None:
        """Let the backing have `size` bytes, which may take long. Raises `UserError`, `OSError`."""
        self._disk.require()
        if self.detaching:
            raise UserError(f"{self._disk.name} is being detached")
        if size > (most := self._disk.log.most * SEGMENT_SIZE):
            raise UserError(
                f"this device can use {most >> 20} MiB of a backing at most, not {size >> 20} MiB"
            )
        with self._disk.use() as backing:
            if backing is None:
                return  # it has just been let go
            backing.grow(size)  # with no lock held: it is filled
            with self._upkeep.lock:
                self._disk.use_all_of(backing)

    def begin_detach(self) -> None:
        """Bring everything back to memory and let the backing go: done by `Store.step`.

        Raises `UserError` if there is none, or if memory would not hold what is on it.
        """
        with self._upkeep.lock:
            self._upkeep.detach.begin()

    @property
    def detaching(self) -> bool:
        """Whether `Store.step` has some of that to do."""
        return self._upkeep.detach.active

    def stop_detach(self) -> None:
        """Leave what is still on disk there. Nothing happens if no detaching is under way."""
        with self._upkeep.lock:
            self._upkeep.detach.stop()

    def write_back(self, *selections: Selection) -> int:
        """Write back what any of these selects, as far as disk and budget go; how many pages."""
        self._disk.require()
        return self._upkeep.write_back(*selections)

    def set_writeback_limit(self, units: int) -> None:
        """So many units of 4 KiB may be written a day, if that is enabled. Raises as `grow`."""
        with self._upkeep.lock:
            self._disk.require()
            self._disk.budget.set_limit(units)
            self._disk.save_budget()

    def enable_writeback_limit(self, enabled: bool) -> None:
        """Whether the limit counts. Raises as `grow`."""
        with self._upkeep.lock:
            self._disk.require()
            self._disk.budget.enable(enabled)
            self._disk.save_budget()

    def statistics(self) -> BackingStatistics:
        """A snapshot; what is not locked is old at worst."""
        disk, detach = self._disk, self._upkeep.detach
        ledger = disk.log.ledger
        live = ledger.live_bytes
        return BackingStatistics(
            bd_count=-(-live // BLOCK),
            bd_reads=disk.reads,
            bd_writes=disk.writes,
            backing=disk.name,
            backing_state=self._state(),
            backing_size=disk.log.size * SEGMENT_SIZE,
            backing_pages=ledger.live_pages,
            backing_data_size=live,
            backing_dead_bytes=disk.log.full().dead_bytes(),
            backing_segments_free=disk.log.room(),
            detach_result=detach.result,
            drain_visits=detach.visits,
            drain_reads=detach.reads,
            writeback_limit=disk.budget.limit,
            writeback_limit_enable=disk.budget.enabled,
            writeback_limit_left=disk.budget.left,
            backing_failed_reads=disk.failed_reads,
            backing_failed_writes=disk.failed_writes,
            backing_corrupt=disk.corrupt,
        )

    def _state(self) -> str:
        if not self._disk.attached:
            return "none"
        if self._upkeep.detach.active:
            return "detaching"
        return "resting" if self._disk.rests else "attached"

"""The report as Prometheus text.

Names and units follow Prometheus' conventions (base units, a _total for what only grows), so they
differ from the ones in `stats`. Counters begin anew with each worker, as they may, but
`vswap_worker_restarts_total`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from vswap.geometry import PAGE_SIZE, SEGMENT_SIZE
from vswapd.control.report import Report, flatten
from vswapd.histogram import Histogram, bound_ns

__all__ = ["render"]

_GAUGES = {
    "size": ("size_bytes", "Size of the device"),
    "orig_data_size": ("original_data_bytes", "Stored pages, uncompressed"),
    "compr_data_size": ("compressed_data_bytes", "Stored pages, as they are kept"),
    "mem_used_total": ("memory_used_bytes", "Memory behind the device's state"),
    "mem_used_max": ("memory_used_max_bytes", "Highest memory use seen"),
    "mem_limit": ("memory_limit_bytes", "Memory limit, 0 for none"),
    "stored_pages": ("stored_pages", "Pages kept in segments"),
    "zero_pages": ("zero_pages", "Pages that are all zeros and cost nothing"),
    "fill_pages": ("fill_pages", "Pages of one word again and again, which cost no segment"),
    "same_pages": ("same_pages", "Zero pages and fill pages"),
    "cold_pages": ("cold_pages", "Stored pages that were compressed again, harder"),
    "dead_bytes": ("dead_bytes", "Room in segments that dead pages take until it is won back"),
    "huge_pages": ("huge_pages", "Pages that do not compress"),
    "clusters_used": ("clusters_used", "Clusters with at least one stored page"),
    "segment_bytes": ("segment_bytes", "Memory of the segments"),
    "buffer_bytes": ("buffer_bytes", "Memory of the receive buffers"),
    "table_bytes": ("table_bytes", "Memory of the swap table"),
    "zeromap_bytes": ("zeromap_bytes", "Memory of the zeromap"),
    "segments_sealed": ("segments_sealed", "Full segments with live pages"),
    "segments_ready": ("segments_ready", "Free segments kept ready"),
    "backing_size": ("backing_size_bytes", "Room on the backing, 0 without one"),
    "backing_pages": ("backing_pages", "Pages kept on the backing"),
    "backing_data_size": ("backing_data_bytes", "Pages on the backing, as they are kept"),
    "backing_dead_bytes": ("backing_dead_bytes", "Room on the backing that dead pages take"),
    "worker_began": ("worker_start_time_seconds", "When the worker began, in seconds since 1970"),
    "writeback_limit_enable": ("writeback_limit_enabled", "Whether the writeback limit counts"),
}
_UNIT_GAUGES = {
    "writeback_limit": ("writeback_limit_bytes", "Most that may be written back in a day"),
    "writeback_limit_left": ("writeback_limit_left_bytes", "What the limit leaves of today"),
}
_SEGMENT_GAUGES = {
    "backing_segments_free": ("backing_free_bytes", "Room in free segments of the backing"),
}
_COUNTERS = {
    "reads": ("reads", "Read requests"),
    "writes": ("writes", "Write requests"),
    "discards": ("discards", "Discard requests"),
    "pages_read": ("pages_read", "Pages read"),
    "pages_written": ("pages_written", "Pages written"),
    "failed_reads": ("failed_reads", "Read requests answered with an error"),
    "failed_writes": ("failed_writes", "Write requests answered with an error"),
    "invalid_io": ("invalid_requests", "Requests beyond the end of the device"),
    "notify_free": ("freed_pages", "Pages freed by discards"),
    "pool_limit_hit": ("pool_limit_hits", "Writes refused for want of room"),
    "segments_cleaned": ("segments_cleaned", "Segments whose dead space was won back"),
    "pages_compacted": ("pages_compacted", "Pages moved to win back dead space"),
    "pages_recompressed": ("pages_recompressed", "Pages compressed again, harder"),
    "internal_errors": ("internal_errors", "Requests that failed for a fault of the daemon"),
    "protocol_errors": ("protocol_errors", "Messages that were no requests"),
    "worker_restarts": ("worker_restarts", "Times the worker was replaced"),
    "writeback_pages": ("writeback_pages", "Pages written to the backing"),
    "promoted_pages": (
        "promoted_pages",
        "Pages brought back to memory because they were read again",
    ),
    "backing_segments_cleaned": (
        "backing_segments_cleaned",
        "Segments of the backing whose dead space was won back",
    ),
    "backing_failed_reads": ("backing_failed_reads", "Reads of the backing that failed"),
    "backing_failed_writes": ("backing_failed_writes", "Writes to the backing that failed"),
    "backing_corrupt": ("backing_corrupt", "Units on the backing that were not what was written"),
}
_UNIT_COUNTERS = {
    "bd_reads": ("backing_read_bytes", "Read from the backing"),
    "bd_writes": ("backing_written_bytes", "Written to the backing"),
}
_KINDS = (
    (GaugeMetricFamily, _GAUGES, 1),
    (GaugeMetricFamily, _UNIT_GAUGES, PAGE_SIZE),
    (GaugeMetricFamily, _SEGMENT_GAUGES, SEGMENT_SIZE),
    (CounterMetricFamily, _COUNTERS, 1),
    (CounterMetricFamily, _UNIT_COUNTERS, PAGE_SIZE),
)
"""What becomes of which fields, and what to multiply them by: zram's units are of 4 KiB."""

_STATES = ("none", "attached", "detaching", "resting")
_BUCKETS = range(2, 24)  # from 4 us, which little is faster than, to 9 s: each is a series


class _Once(Collector):
    """Collects one report."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._values = flatten(report)
        self._device = [report.device.name]

    def collect(self) -> Iterator[Metric]:
        yield from self._about()
        yield from self._numbers()
        yield self._durations()

    def _about(self) -> Iterator[Metric]:
        """What is said in words: a 1 whose labels are the words."""
        device = self._report.device
        build = GaugeMetricFamily(
            "vswap_build_info", "Version of the daemon's code", labels=["device", "version"]
        )
        build.add_metric([*self._device, device.version], 1)
        yield build
        info = GaugeMetricFamily(
            "vswap_info", "How the device is set", labels=["device", "codec", "unit_pages"]
        )
        info.add_metric([*self._device, device.codec, str(device.unit_pages)], 1)
        yield info
        now = self._report.store.backing_state
        state = GaugeMetricFamily(
            "vswap_backing_state",
            "Which of its states the backing is in",
            labels=["device", "state"],
        )
        for each in _STATES:
            state.add_metric([*self._device, each], float(each == now))
        yield state

    def _durations(self) -> Metric:
        """How long requests took, by what they asked for."""
        latency = self._report.latency
        family = HistogramMetricFamily(
            "vswap_request_duration_seconds",
            "Time from a request's receipt to its reply",
            labels=["device", "operation"],
        )
        for operation in fields(latency):
            histogram: Histogram = getattr(latency, operation.name)
            family.add_metric(
                [*self._device, operation.name], _cumulated(histogram), histogram.total_ns / 1e9
            )
        return family

    def _numbers(self) -> Iterator[Metric]:
        for family, named, unit in _KINDS:
            for field, (name, about) in named.items():
                metric = family(f"vswap_{name}", about, labels=["device"])
                metric.add_metric(self._device, float(self._values[field]) * unit)
                yield metric


def _cumulated(histogram: Histogram) -> list[tuple[str, float]]:
    """Requests by the most that they took, in seconds, as Prometheus has them."""
    below = [(str(bound_ns(each) / 1e9), float(histogram.below(each))) for each in _BUCKETS]
    return [*below, ("+Inf", float(histogram.count))]


def render(report: Report) -> str:
    """The report in Prometheus' text format, with HELP and TYPE lines."""
    registry = CollectorRegistry()
    registry.register(_Once(report))
    return generate_latest(registry).decode()

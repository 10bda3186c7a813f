"""The report as Prometheus text."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from vswapd.control.report import Report, flatten

__all__ = ["render"]

# Names follow Prometheus' conventions (base units, a _total for what only grows), so they
# differ from the ones in `stats`.
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
    "table_bytes": ("table_bytes", "Memory of the swap table"),
    "zeromap_bytes": ("zeromap_bytes", "Memory of the zeromap"),
    "segments_sealed": ("segments_sealed", "Full segments with live pages"),
    "segments_ready": ("segments_ready", "Free segments kept ready"),
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
}


class _Once(Collector):
    """Collects one report."""

    def __init__(self, report: Report) -> None:
        self._values = flatten(report)
        self._device = [report.device.name]

    def collect(self) -> Iterator[Metric]:
        for field, (name, about) in _GAUGES.items():
            gauge = GaugeMetricFamily(f"vswap_{name}", about, labels=["device"])
            gauge.add_metric(self._device, float(self._values[field]))
            yield gauge
        for field, (name, about) in _COUNTERS.items():
            counter = CounterMetricFamily(f"vswap_{name}", about, labels=["device"])
            counter.add_metric(self._device, float(self._values[field]))
            yield counter


def render(report: Report) -> str:
    """The report in Prometheus' text format, with HELP and TYPE lines."""
    registry = CollectorRegistry()
    registry.register(_Once(report))
    return generate_latest(registry).decode()

"""What each file shows of a report."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from vswapd.control import Report
from vswapd.control.files import RENDERERS

LABELLED = {
    "vswap_build_info",
    "vswap_info",
    "vswap_backing_state",
    "vswap_request_duration_seconds",
}
"""Families with more labels than the device."""

# The columns of zram, in its order (Documentation/admin-guide/blockdev/zram.rst).
COLUMNS = {
    "mm_stat": [
        "orig_data_size",
        "compr_data_size",
        "mem_used_total",
        "mem_limit",
        "mem_used_max",
        "same_pages",
        "pages_compacted",
        "huge_pages",
        "huge_pages_since",
    ],
    "io_stat": ["failed_reads", "failed_writes", "invalid_io", "notify_free"],
    "bd_stat": ["bd_count", "bd_reads", "bd_writes"],
}


def from_json(report: Report) -> dict[str, object]:
    values = json.loads(RENDERERS["stats.json"](report))
    assert isinstance(values, dict)
    return values


def test_there_are_these_files() -> None:
    assert set(RENDERERS) == {"stats", "stats.json", "metrics", *COLUMNS}


@pytest.mark.parametrize("name", RENDERERS)
def test_files_end_with_a_newline(name: str, report: Report) -> None:
    text = RENDERERS[name](report)
    assert text.endswith("\n")
    assert not text.endswith("\n\n")


@pytest.mark.parametrize("name", RENDERERS)
def test_files_are_ascii(name: str, report: Report) -> None:
    assert RENDERERS[name](report).isascii()


# --- zram's files ----------------------------------------------------------------------


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_are_zram_s(name: str, report: Report) -> None:
    values = from_json(report)
    columns = RENDERERS[name](report).split()
    assert columns == [str(values[column]) for column in COLUMNS[name]]


def test_mm_stat_columns_by_their_source(report: Report) -> None:
    store = report.store
    assert [int(column) for column in RENDERERS["mm_stat"](report).split()] == [
        store.orig_data_size,
        store.compr_data_size,
        store.mem_used_total,
        store.mem_limit,
        store.mem_used_max,
        store.same_pages,
        store.pages_compacted,
        store.huge_pages,
        store.huge_pages_since,
    ]


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_stand_on_one_line_right_aligned_in_eight(name: str, report: Report) -> None:
    text = RENDERERS[name](report)
    assert re.fullmatch(r"[ \d]{7}\d( [ \d]{7}\d)*\n", text)


# --- stats and stats.json --------------------------------------------------------------


def test_each_line_of_stats_is_a_name_and_a_value(report: Report) -> None:
    for line in RENDERERS["stats"](report).splitlines():
        assert re.fullmatch(r"[a-z0-9_]+ \S+", line)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("", "-"),
        ("/var/lib/b", "/var/lib/b"),
        ("/a b\n\udcff\u00e4\\", "/a b\\n\\udcff\\xe4\\\\"),
    ],
)
def test_a_text_is_one_line_of_ascii_in_stats(path: str, shown: str, report: Report) -> None:
    named = replace(report, store=replace(report.store, backing=path))
    lines = RENDERERS["stats"](named).splitlines()
    assert f"backing {shown}" in lines
    assert len(lines) == len(RENDERERS["stats"](report).splitlines())
    assert from_json(named)["backing"] == path


def test_stats_says_each_name_once(report: Report) -> None:
    names = [line.split()[0] for line in RENDERERS["stats"](report).splitlines()]
    assert len(names) == len(set(names))


def test_stats_json_says_what_stats_says(report: Report) -> None:
    values = from_json(report)
    said = dict(line.split(" ", 1) for line in RENDERERS["stats"](report).splitlines())
    plain = {
        name: str(int(value)) if isinstance(value, bool) else str(value)
        for name, value in values.items()
    }
    assert plain == said


@pytest.mark.parametrize("figure", ["p50_us", "p90_us", "p99_us", "max_us"])
@pytest.mark.parametrize("kind", ["read", "write", "discard"])
def test_stats_json_says_how_long_requests_took(kind: str, figure: str, report: Report) -> None:
    assert type(from_json(report)[f"{kind}_{figure}"]) is float


def test_stats_json_keeps_the_kinds_of_values(report: Report) -> None:
    values = from_json(report)
    assert values["memory_locked"] is True
    assert values["io_flusher"] is False
    assert values["name"] == "swap0"
    assert values["stored_pages"] == report.store.stored_pages


@pytest.mark.parametrize(
    "name",
    [
        "orig_data_size",
        "compr_data_size",
        "mem_used_total",
        "mem_limit",
        "mem_used_max",
        "same_pages",
        "pages_compacted",
        "huge_pages",
        "failed_reads",
        "failed_writes",
        "notify_free",
        "bd_count",
        "bd_reads",
        "bd_writes",
        "zero_pages",
        "fill_pages",
        "cold_pages",
        "dead_bytes",
        "pool_limit_hit",
        "segments_cleaned",
        "pages_recompressed",
        "stored_pages",
        "table_bytes",
        "zeromap_bytes",
        "clusters_used",
        "worker_restarts",
    ],
)
def test_stats_json_has_the_names_that_were_promised(name: str, report: Report) -> None:
    assert type(from_json(report)[name]) is int


# --- metrics ---------------------------------------------------------------------------


def families(report: Report) -> dict[str, Metric]:
    parsed = text_string_to_metric_families(RENDERERS["metrics"](report))
    return {family.name: family for family in parsed}


def sample(report: Report, family: str) -> float:
    (only,) = families(report)[family].samples
    return float(only.value)


def test_metrics_are_prometheus_text(report: Report) -> None:
    assert families(report)


def test_each_family_has_help_and_type(report: Report) -> None:
    text = RENDERERS["metrics"](report)
    for family in families(report).values():
        name = family.name + ("_total" if family.type == "counter" else "")
        assert family.documentation
        assert text.count(f"# HELP {name} ") == 1
        assert f"# TYPE {name} {family.type}\n" in text


def test_every_sample_is_of_this_device(report: Report) -> None:
    for family in families(report).values():
        assert {one.labels["device"] for one in family.samples} == {"swap0"}


def test_each_family_of_numbers_has_one_sample(report: Report) -> None:
    for name, family in families(report).items():
        if name not in LABELLED:
            assert [one.labels for one in family.samples] == [{"device": "swap0"}]


def test_names_follow_the_conventions(report: Report) -> None:
    for family in families(report).values():
        assert re.fullmatch(r"vswap_[a-z_]+", family.name)
        assert family.type in ("gauge", "counter", "histogram")
        for one in family.samples:
            assert one.name.endswith("_total") is (family.type == "counter")


@pytest.mark.parametrize(
    ("family", "field"),
    [
        ("vswap_size_bytes", "size"),
        ("vswap_original_data_bytes", "orig_data_size"),
        ("vswap_compressed_data_bytes", "compr_data_size"),
        ("vswap_memory_used_bytes", "mem_used_total"),
        ("vswap_stored_pages", "stored_pages"),
        ("vswap_zero_pages", "zero_pages"),
        ("vswap_reads", "reads"),
        ("vswap_writes", "writes"),
        ("vswap_discards", "discards"),
        ("vswap_failed_reads", "failed_reads"),
        ("vswap_failed_writes", "failed_writes"),
        ("vswap_freed_pages", "notify_free"),
        ("vswap_same_pages", "same_pages"),
        ("vswap_fill_pages", "fill_pages"),
        ("vswap_cold_pages", "cold_pages"),
        ("vswap_dead_bytes", "dead_bytes"),
        ("vswap_memory_limit_bytes", "mem_limit"),
        ("vswap_pool_limit_hits", "pool_limit_hit"),
        ("vswap_segments_cleaned", "segments_cleaned"),
        ("vswap_pages_compacted", "pages_compacted"),
        ("vswap_pages_recompressed", "pages_recompressed"),
        ("vswap_backing_size_bytes", "backing_size"),
        ("vswap_backing_pages", "backing_pages"),
        ("vswap_backing_data_bytes", "backing_data_size"),
        ("vswap_backing_dead_bytes", "backing_dead_bytes"),
        ("vswap_backing_segments_cleaned", "backing_segments_cleaned"),
        ("vswap_backing_failed_reads", "backing_failed_reads"),
        ("vswap_backing_failed_writes", "backing_failed_writes"),
        ("vswap_backing_corrupt", "backing_corrupt"),
        ("vswap_writeback_pages", "writeback_pages"),
        ("vswap_writeback_limit_enabled", "writeback_limit_enable"),
    ],
)
def test_samples_are_the_report_s(family: str, field: str, report: Report) -> None:
    assert sample(report, family) == getattr(report.store, field)


@pytest.mark.parametrize(
    ("family", "field"),
    [
        ("vswap_backing_read_bytes", "bd_reads"),
        ("vswap_backing_written_bytes", "bd_writes"),
        ("vswap_writeback_limit_bytes", "writeback_limit"),
        ("vswap_writeback_limit_left_bytes", "writeback_limit_left"),
    ],
)
def test_units_of_zram_become_bytes(family: str, field: str, report: Report) -> None:
    assert sample(report, family) == getattr(report.store, field) * 4096


def test_free_segments_are_room(report: Report) -> None:
    assert sample(report, "vswap_backing_free_bytes") == report.store.backing_segments_free << 20


@pytest.mark.parametrize(
    ("family", "labels"),
    [
        ("vswap_build_info", {"device": "swap0", "version": "0.7"}),
        ("vswap_info", {"device": "swap0", "codec": "lz4", "unit_pages": "1004"}),
    ],
)
def test_words_are_labels_of_a_1(family: str, labels: dict[str, str], report: Report) -> None:
    (only,) = families(report)[family].samples
    assert (only.labels, only.value) == (labels, 1)


@pytest.mark.parametrize("state", ["none", "attached", "detaching", "resting"])
def test_the_backing_is_in_one_of_its_states(state: str, report: Report) -> None:
    now = replace(report, store=replace(report.store, backing_state=state))
    samples = families(now)["vswap_backing_state"].samples
    assert {one.labels["state"] for one in samples if one.value} == {state}
    assert len(samples) == 4


@pytest.mark.parametrize("operation", ["read", "write", "discard"])
def test_durations_are_a_histogram(operation: str, report: Report) -> None:
    histogram = getattr(report.latency, operation)
    samples = [
        one
        for one in families(report)["vswap_request_duration_seconds"].samples
        if one.labels["operation"] == operation
    ]
    below = {one.labels["le"]: one.value for one in samples if one.name.endswith("_bucket")}
    at = {float(le): value for le, value in below.items()}
    assert list(at) == sorted(at)
    assert at[16384 / 1e9] == 0
    assert at[32768 / 1e9] == histogram.counts[5]
    assert at[65536 / 1e9] == at[524288 / 1e9] == histogram.counts[5] + histogram.counts[6]
    assert at[float("inf")] == histogram.count
    others = {one.name: one.value for one in samples if not one.name.endswith("_bucket")}
    assert others == {
        "vswap_request_duration_seconds_count": histogram.count,
        "vswap_request_duration_seconds_sum": histogram.total_ns / 1e9,
    }


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool")
def test_prometheus_own_lint_is_content(report: Report) -> None:
    linted = subprocess.run(
        ["promtool", "check", "metrics"],
        input=RENDERERS["metrics"](report),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (linted.returncode, linted.stdout, linted.stderr) == (0, "", "")


def test_no_two_families_tell_the_same_number(report: Report) -> None:
    """All numbers of the report differ, so a name that was mixed up would show."""
    found = families(report)
    values = [found[name].samples[0].value for name in found if name not in LABELLED]
    assert len(values) == len(set(values))

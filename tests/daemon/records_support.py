"""Histories as a worker would say them."""

from __future__ import annotations

import json

from vswapd.control.history import COLUMNS

NOW = 1_800_000_000
MIB = 1 << 20


def row(time: float, seconds: float = 10.0, **values: float) -> list[float]:
    known: dict[str, float] = dict.fromkeys(COLUMNS, 0)
    return list({**known, "time": time, "seconds": seconds, **values}.values())


def history(
    fine: list[list[float]], coarse: list[list[float]] | None = None, **changed: object
) -> bytes:
    """The content of `history.json`."""
    head = {
        "name": "swap0",
        "version": "0.7",
        "began": NOW - 5000,
        "worker_restarts": 0,
        "takeovers": [],
        "size": 1024 * MIB,
        "mem_limit": 0,
        "backing_size": 0,
        "columns": list(COLUMNS),
    }
    series = [{"interval": 10, "rows": fine}, {"interval": 300, "rows": coarse or []}]
    return json.dumps({**head, "series": series, **changed}).encode()


def lively(samples: int = 300, **changed: object) -> bytes:
    """One in which something happens, that ends now."""
    rows = [
        row(
            NOW - 10 * (samples - at),
            orig_data_size=(100 + at) * MIB,
            compr_data_size=40 * MIB,
            mem_used_total=60 * MIB,
            same_pages=256,
            pages_read=2560 if at % 3 else 0,
            pages_written=1280,
            read_p50_us=10 + at / 10,
            read_p99_us=300.0,
            write_p50_us=80.0 if at % 50 else 0.0,
            write_p99_us=2000.0,
        )
        for at in range(1, samples + 1)
    ]
    return history(rows, None, **changed)

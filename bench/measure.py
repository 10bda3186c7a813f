"""Requests to a block device, and the figures they give."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from bench.build import OUT, build
from bench.corpus import corpus
from bench.peers import Peer, PeerError, Vswap
from bench.report import Figures

__all__ = [
    "CORPUS_MIB",
    "OUT",
    "available_bytes",
    "load",
    "read_4k",
    "run_json",
    "source",
    "wait_for_rest",
]

CORPUS_MIB = 256
MIB = 1 << 20
_SECONDS = 600.0
_REST_SECONDS = 5.0
_REST_TIMEOUT = 600.0
_WORK = ("segments_cleaned", "pages_compacted", "pages_recompressed", "mem_used_total")


def source(mib: int = CORPUS_MIB) -> Path:
    """The corpus of that size, made once. Raises `CorpusError`."""
    OUT.mkdir(exist_ok=True)
    name = "corpus.bin" if mib == CORPUS_MIB else f"corpus-{mib}.bin"
    return corpus(OUT / name, mib)


def available_bytes() -> int:
    """Memory that programs can have now, by /proc/meminfo."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    return int(kib) << 10


def run_json(*argv: str) -> dict[str, Any]:
    """Run a program to its end and return the JSON object that it printed."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"{Path(argv[0]).name}: {done.stderr.strip() or done.stdout.strip()}")
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def read_4k(peer: Peer, depth: int, seconds: float, region: int = 256 * MIB, *more: str) -> Figures:
    """Random 4 KiB reads of pages that are in memory: microseconds and reads a second.

    `more` are further options of fio.
    """
    found = run_json(
        *("fio", "--name=read", f"--filename={peer.device}", "--direct=1", "--rw=randread"),
        *("--bs=4k", f"--iodepth={depth}", "--ioengine=io_uring", f"--size={region}"),
        *("--norandommap", "--randrepeat=0", "--time_based", f"--runtime={seconds}"),
        *("--output-format=json", *more),
    )
    read = found["jobs"][0]["read"]
    return {
        f"4K read, depth {depth}: mean us": read["lat_ns"]["mean"] / 1e3,
        f"4K read, depth {depth}: p99 us": read["clat_ns"]["percentile"]["99.000000"] / 1e3,
        f"4K read, depth {depth}: reads/s": read["iops"],
    }


def load(device: str, corpus_file: Path, size: int, streams: int = 1) -> dict[str, Any]:
    """Write `size` bytes of the corpus in 128 KiB blocks; what blkload says about it."""
    return run_json(
        *(str(build("blkload", OUT)), "--device", device, "--source", str(corpus_file)),
        *("--bytes", str(size), "--rw", "write", "--block", "128K"),
        *("--streams", str(streams), "--json"),
    )


def wait_for_rest(peer: Vswap) -> float:
    """Wait until vswap has not cleaned for a while; since when (`time.monotonic`).

    Raises `PeerError` if that takes too long.
    """
    began = since = time.monotonic()
    before: list[Any] = []
    while time.monotonic() - began < _REST_TIMEOUT:
        stats = peer.stats()
        now = [stats[name] for name in _WORK]
        if now != before:
            before, since = now, time.monotonic()
        if time.monotonic() - since >= _REST_SECONDS:
            return since
        time.sleep(0.25)
    raise PeerError(f"the device does not come to rest within {_REST_TIMEOUT:.0f} s")

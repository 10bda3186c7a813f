"""The listener over a real device, and a real Prometheus that scrapes it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mount.harness import PAGE, Start, Worker, environment, eventually, halt
from prometheus_client.parser import text_string_to_metric_families
from prometheus_support import RULES, asked_for, exposed, expressions

pytestmark = pytest.mark.mount

SECONDS = 30.0
NAME = f"metrics{os.getpid()}"
"""There may be other devices on this machine, and the listener tells of them too."""
PAGES = 50


@pytest.fixture
def named(start: Start) -> Worker:
    """A device that can be told from all others, and has been used."""
    worker = start(name=NAME, limit=4 * SECONDS)
    assert worker.told == "ready", worker.stderr()
    fd = os.open(worker.swap, os.O_RDWR)
    try:
        for at in range(PAGES):
            os.pwrite(fd, os.urandom(PAGE), at * PAGE)
            assert len(os.pread(fd, PAGE, at * PAGE)) == PAGE
    finally:
        os.close(fd)
    return worker


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, env=environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture
def listener(named: Worker, tmp_path: Path) -> Iterator[str]:
    """The URL of one, in a process of its own."""
    log = tmp_path / "listener"
    command = [sys.executable, "-m", "vswapd", "metrics", "--listen", "127.0.0.1:0"]
    with running(command, log) as process:
        assert eventually(lambda: b"\n" in log.read_bytes(), SECONDS)
        yield log.read_text().split()[1]
        process.terminate()
        assert process.wait(SECONDS) == 130
    assert "Traceback" not in log.read_text()


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=SECONDS) as reply:
        found: bytes = reply.read()
    return found


def sample(text: str, name: str) -> float | None:
    """Of this device."""
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            if one.name == name and one.labels.get("device") == NAME:
                return one.value
    return None


def test_it_has_what_dashboard_and_rules_ask_for(listener: str) -> None:
    text = get(listener).decode()
    assert asked_for() - exposed(text) == set()
    assert sample(text, "vswap_up") == 1
    assert sample(text, "vswap_pages_written_total") == PAGES


def test_any_user_may_read_root_s(named: Worker) -> None:
    """So the listener need not be root."""
    nobody = 65534
    ended = subprocess.run(
        ["cat", str(named.mount / "metrics")],
        user=nobody,
        group=nobody,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert sample(ended.stdout, "vswap_pages_written_total") == PAGES


def test_a_worker_that_stands_still_is_down_until_it_goes_on(named: Worker, listener: str) -> None:
    """And the listener goes on answering meanwhile."""

    def up() -> float | None:
        return sample(get(listener).decode(), "vswap_up")

    serving = named.serving()
    assert serving is not None
    halt(serving)
    try:
        assert eventually(lambda: up() == 0, SECONDS)
        assert sample(get(listener).decode(), "vswap_pages_written_total") is None
    finally:
        os.kill(serving, signal.SIGCONT)
    assert eventually(lambda: up() == 1, SECONDS)


def test_a_device_that_goes_is_forgotten(named: Worker, listener: str) -> None:
    assert sample(get(listener).decode(), "vswap_up") == 1
    named.signal()
    assert named.wait() == 0
    assert eventually(lambda: sample(get(listener).decode(), "vswap_up") is None, SECONDS)


# --- A real Prometheus -----------------------------------------------------------------


@dataclass(frozen=True)
class Prometheus:
    """One that scrapes the listener every second, and its HTTP interface on this machine."""

    url: str

    def ask(self, what: str, **parameters: str) -> dict[str, Any]:
        url = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        found = json.loads(get(url))
        assert found["status"] == "success", found
        data: dict[str, Any] = found["data"]
        return data

    def value(self, query: str) -> float | None:
        """Of an expression that has one value at most."""
        results = self.ask("query", query=query)["result"]
        assert len(results) <= 1, results
        return float(results[0]["value"][1]) if results else None

    def is_ready(self) -> bool:
        try:
            return b"Ready" in get(f"{self.url}/-/ready")
        except OSError:
            return False


def a_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    return port


@pytest.fixture
def prometheus(listener: str, tmp_path: Path) -> Iterator[Prometheus]:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("there is no prometheus (Debian's package of that name)")
    configuration = tmp_path / "prometheus.yml"
    target = urllib.parse.urlsplit(listener).netloc
    configuration.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(RULES)],
                "scrape_configs": [
                    {"job_name": "vswap", "static_configs": [{"targets": [target]}]}
                ],
            }
        )
    )
    port = a_free_port()
    log = tmp_path / "prometheus.log"
    command = [
        program,
        f"--config.file={configuration}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with running(command, log):
        made = Prometheus(f"http://127.0.0.1:{port}")
        assert eventually(made.is_ready, SECONDS), log.read_text()
        yield made


def test_prometheus_has_what_the_device_says(named: Worker, prometheus: Prometheus) -> None:
    this = f'{{device="{NAME}"}}'
    written = f"vswap_pages_written_total{this}"
    assert eventually(lambda: prometheus.value(written) == PAGES, SECONDS)
    assert prometheus.value(f"vswap_up{this}") == 1
    assert prometheus.value('up{job="vswap"}') == 1
    stats = named.stats()
    assert prometheus.value(f"vswap_size_bytes{this}") == stats["size"]
    count = f'vswap_request_duration_seconds_count{{device="{NAME}",operation="write"}}'
    assert prometheus.value(count) == stats["write_count"] == PAGES
    quantile = (
        "1e6 * histogram_quantile(0.5, vswap_request_duration_seconds_bucket"
        f'{{device="{NAME}",operation="write"}})'
    )
    assert prometheus.value(quantile) == pytest.approx(stats["write_p50_us"], rel=0.01)
    targets = prometheus.ask("targets")["activeTargets"]
    assert [target["lastError"] for target in targets] == [""]


def test_prometheus_evaluates_rules_and_dashboard(prometheus: Prometheus) -> None:
    assert eventually(lambda: prometheus.value('up{job="vswap"}') == 1, SECONDS)

    def rules() -> list[dict[str, Any]]:
        groups = prometheus.ask("rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    assert eventually(lambda: {rule["health"] for rule in rules()} == {"ok"}, SECONDS)
    fired = [
        alert
        for alert in prometheus.ask("alerts")["alerts"]
        if alert["labels"].get("device") == NAME
    ]
    assert fired == []
    for expression in expressions():
        prometheus.ask("query", query=expression)

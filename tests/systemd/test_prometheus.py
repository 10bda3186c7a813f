"""Rules and dashboard: sound by Prometheus' own tools, and by what can be said of them here.

Whether there is what they ask for: tests/daemon/control/test_metrics_names.py, and with a real
device and a real Prometheus tests/mount/test_metrics.py.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_support import RULES, dashboard, expressions

TESTS = Path(__file__).parent / "vswap.rules.test.yml"

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="there is no promtool (Debian's package prometheus)"
)


def promtool(*arguments: str) -> None:
    ended = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


@needs_promtool
def test_the_rules_are_rules() -> None:
    promtool("check", "rules", str(RULES))


@needs_promtool
def test_alerts_fire_when_they_should() -> None:
    promtool("test", "rules", str(TESTS))


def test_every_alert_is_tested_and_explained() -> None:
    lines = RULES.read_text().splitlines()
    alerts = [line.split()[-1] for line in lines if "- alert:" in line]
    tests = TESTS.read_text()
    for alert in alerts:
        assert f"alertname: {alert}, exp_alerts: []" in tests
        assert f'alertname="{alert}",severity=' in tests
    for part in ("summary:", "description:", "severity:"):
        assert sum(part in line for line in lines) == len(alerts)


@needs_promtool
def test_the_dashboard_s_expressions_are_promql(tmp_path: Path) -> None:
    """As rules, for that is what promtool checks."""
    rules = [
        {"record": f"dashboard:panel:{number}", "expr": expression}
        for number, expression in enumerate(expressions())
    ]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", str(path))


def test_all_of_the_dashboard_can_be_chosen() -> None:
    """By device and instance, but not what a rate is taken over."""
    panels = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]
    for panel in panels:
        for target in panel["targets"]:
            named = target["expr"].count("vswap_")
            assert target["expr"].count('device=~"$device",instance=~"$instance"') == named
            assert target["datasource"]["uid"] == "${datasource}"


def test_panels_have_places_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        place = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not place & taken, panel["title"]
        taken |= place


@pytest.mark.parametrize("title", ["Now", "Memory", "Requests", "Backing", "Upkeep"])
def test_the_dashboard_has_its_rows(title: str) -> None:
    rows = [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]
    assert title in rows

"""What the files for Prometheus and Grafana ask for, by its expressions and names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parent.parent
DASHBOARD = ROOT / "systemd" / "grafana" / "vswap.json"
RULES = ROOT / "systemd" / "prometheus" / "vswap.rules.yml"

_VARIABLES = {"$__rate_interval": "1m", "$device": ".*", "$instance": ".*"}


def dashboard() -> dict[str, Any]:
    found = json.loads(DASHBOARD.read_text())
    assert isinstance(found, dict)
    return found


def expressions() -> Iterator[str]:
    """The dashboard's, with Grafana's variables filled in."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for variable, value in _VARIABLES.items():
                expression = expression.replace(variable, value)
            yield expression


def names_in(texts: Iterable[str]) -> set[str]:
    """Of samples."""
    return {name for text in texts for name in re.findall(r"\bvswap_[a-z_]+\b", text)}


def asked_for() -> set[str]:
    """All samples that dashboard and rules name."""
    variables = (each.get("definition", "") for each in dashboard()["templating"]["list"])
    rules = [line for line in RULES.read_text().splitlines() if not line.strip().startswith("#")]
    return names_in([*expressions(), *variables, *rules])


def exposed(text: str) -> set[str]:
    """All samples that an exposition has."""
    return {one.name for family in text_string_to_metric_families(text) for one in family.samples}

"""systemd/vswap.toml.example, and what else names the keys: it has all of them, as they are."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import click
import pytest

from vswapd.cli.confcheck import configured, plan_for
from vswapd.cli.plan import make_plan
from vswapd.cli.up import up
from vswapd.confkeys import KEYS, NONE

EXAMPLE = Path(__file__).parents[2] / "systemd" / "vswap.toml.example"
DEVICE = "swap0"
# What only a value that is no default can show; the text above it says "By default ...".
SHOWN = {
    "mount": "/run/vswap/swap0",
    "spares": 2,
    "priority": 100,
    "backing": "/var/lib/vswap-swap0",
    "backing-size": KEYS["size"].default,
    "writeback-limit": "none",
}


def uncommented() -> str:
    return re.sub(r"^#(?=\S)", "", EXAMPLE.read_text(), flags=re.M)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The example with every key in use, as root would have it."""
    file = tmp_path / "vswap.toml"
    file.write_text(uncommented())
    file.chmod(0o644)
    return file


def test_it_names_every_key_once_with_its_default() -> None:
    document = tomllib.loads(uncommented())
    assert set(document) == {"defaults", "device"}
    assert list(document["device"]) == [DEVICE]
    common, own = document["defaults"], document["device"][DEVICE]
    assert not common.keys() & own.keys()
    computed = {name for name, key in KEYS.items() if key.default is None}
    assert computed == set(SHOWN)
    defaults = {name: key.default for name, key in KEYS.items()}
    assert common | own == defaults | SHOWN


def test_it_says_what_the_computed_defaults_are() -> None:
    blocks = EXAMPLE.read_text().split("\n\n")
    for name in SHOWN:
        (block,) = (block for block in blocks if f"\n#{name} = " in block)
        assert "By default" in block, name


def test_it_is_valid_as_it_stands_and_uncommented(example: Path) -> None:
    plan = plan_for(configured(str(example)), DEVICE, {})
    assert plan.settings.backing == SHOWN["backing"]
    example.write_text(EXAMPLE.read_text())
    configuration = configured(str(example))
    assert configuration.settings(DEVICE) == {}
    assert plan_for(configuration, DEVICE, {}) == make_plan(DEVICE, {})


def test_it_has_no_machine_s_paths_but_of_the_system() -> None:
    assert set(re.findall(r"/(\w+)/", EXAMPLE.read_text())) <= {"etc", "run", "var"}


def test_the_keys_are_the_options_of_up() -> None:
    options = {each.name: each for each in up.params if isinstance(each, click.Option)}
    assert {key.option for key in KEYS.values()} == set(options) - {"config", "every"}
    with up.make_context("up", []) as context:
        defaults = context.params
    for key in KEYS.values():
        assert f"--{key.name}" in options[key.option].opts
        default = None if key.default == NONE else key.default
        assert defaults[key.option] == default, key.name

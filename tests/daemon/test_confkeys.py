"""The keys of a configuration take what they say that they take, and nothing beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from vswapd.cli.confcheck import configured
from vswapd.conffile import ConfigError
from vswapd.confkeys import KEYS, Value

NUMBERS = {
    name: (int(found[1]), int(found[2]))
    for name, key in KEYS.items()
    if (found := re.fullmatch(r"(\d+) to (\d+)", key.values))
}
CHOICES: dict[str, list[Value]] = {
    name: json.loads(f"[{key.values.replace(' or ', ', ')}]")
    for name, key in KEYS.items()
    if " to " not in key.values and key.values[0] in '"0123456789'
}


def taken(folder: Path, name: str, value: Value) -> bool:
    """Whether a configuration may have it."""
    file = folder / "vswap.toml"
    file.write_text(f"[device.swap0]\n{name} = {json.dumps(value)}\n")
    file.chmod(0o644)
    try:
        configured(str(file))
    except ConfigError as error:
        assert name in error.lines[0]
        return False
    return True


def test_every_key_says_what_it_takes() -> None:
    assert set(NUMBERS) == {"threads", "spin-us", "watchdog", "spares", "priority"}
    assert set(CHOICES) == {"codec", "unit-pages"}
    others = {key.values for name, key in KEYS.items() if name not in {*NUMBERS, *CHOICES}}
    assert others == {"a size", 'a size or "none"', "a path", "true or false"}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_taken_up_to_its_bounds(name: str, tmp_path: Path) -> None:
    least, most = NUMBERS[name]
    tried = (least - 1, least, most, most + 1)
    assert [taken(tmp_path, name, number) for number in tried] == [False, True, True, False]


@pytest.mark.parametrize("name", CHOICES)
def test_each_choice_is_taken_and_no_other(name: str, tmp_path: Path) -> None:
    assert all(taken(tmp_path, name, choice) for choice in CHOICES[name])
    other = "zlib" if isinstance(CHOICES[name][0], str) else 3
    assert not taken(tmp_path, name, other)

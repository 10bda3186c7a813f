"""Settings: what is accepted, and the one line that everything else gets."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vswap.errors import UserError
from vswap.geometry import MAX_DEVICE_SIZE, SEGMENT_SIZE, Geometry
from vswap.store import Shape, least_memory, segments_for
from vswap.store.budget import MAX_LIMIT
from vswapd import channel
from vswapd.config import (
    CODECS,
    MAX_WRITEBACK_LIMIT,
    Settings,
    check_backing_size,
    device_name,
    least_memory_limit,
    parse_size,
)

GOOD: dict[str, Any] = {"name": "swap0", "mount": "/run/vswap/swap0", "size": 1 << 30}

LONG = "n" * 256


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("1", 1),
        ("64k", 64 << 10),
        ("64K", 64 << 10),
        ("512M", 512 << 20),
        ("1G", 1 << 30),
        ("1.5GiB", 3 << 29),
        ("1.5 GiB", 3 << 29),
        (" 2T ", 2 << 40),
        ("1gib", 1 << 30),
        ("1GB", 1 << 30),
        ("1Gi", 1 << 30),
        ("4096B", 4096),
        (".5k", 512),
        ("1.k", 1024),
        ("+1k", 1024),
        ("16T", 16 << 40),
        ("17E", 17 << 60),
        # As a float this is 2**53 + 1, rounded to 2**53.
        ("9007199254740993", 2**53 + 1),
        ("0.0000152587890625G", 16384),
    ],
)
def test_parse_size(text: str, size: int) -> None:
    assert parse_size(text) == size


@given(st.integers(1, 2**70), st.sampled_from(["", "k", "M", "G", "T"]))
def test_parse_size_is_exact(number: int, unit: str) -> None:
    factor = 1024 ** ["", "k", "M", "G", "T"].index(unit)
    assert parse_size(f"{number}{unit}") == number * factor
    half = Fraction(number * factor, 2)
    if half.denominator == 1 and number > 1:
        assert parse_size(f"{number // 2}{'.5' if number % 2 else ''}{unit}") == half


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "size '' is not a size; write it like 512M or 1.5G"),
        ("x", "size 'x' is not a size; write it like 512M or 1.5G"),
        ("1X", "size '1X' is not a size; write it like 512M or 1.5G"),
        ("1 2", "size '1 2' is not a size; write it like 512M or 1.5G"),
        ("1e9", "size '1e9' is not a size; write it like 512M or 1.5G"),
        ("0x10", "size '0x10' is not a size; write it like 512M or 1.5G"),
        ("nan", "size 'nan' is not a size; write it like 512M or 1.5G"),
        ("1iB", "size '1iB' is not a size; write it like 512M or 1.5G"),
        ("G", "size 'G' is not a size; write it like 512M or 1.5G"),
        (".", "size '.' is not a size; write it like 512M or 1.5G"),
        ("1\n2", "size '1\\n2' is not a size; write it like 512M or 1.5G"),
        ("\u0661", "size '\u0661' is not a size; write it like 512M or 1.5G"),  # a digit to int()
        ("9" * 5000, "size '9999999999999999...' is not a size; write it like 512M or 1.5G"),
        ("0", "size must be more than zero, not 0"),
        ("0G", "size must be more than zero, not 0G"),
        ("-1G", "size must be more than zero, not -1G"),
        ("0.5", "size must be a whole number of bytes, and 0.5 is not"),
        ("1.0001k", "size must be a whole number of bytes, and 1.0001k is not"),
    ],
)
def test_parse_size_refuses(text: str, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_size(text)
    assert str(caught.value) == reason


@given(st.text())
def test_parse_size_gives_a_size_or_a_user_error(text: str) -> None:
    try:
        assert parse_size(text) > 0
    except UserError as error:
        assert "\n" not in str(error)


def test_parse_size_names_the_setting() -> None:
    with pytest.raises(UserError, match=r"^memory-limit 'x' is not a size"):
        parse_size("x", "memory-limit")


@pytest.mark.parametrize(
    ("mount", "name"),
    [("/run/vswap/swap0", "swap0"), ("/a/b-c_d.e/", "b-c_d.e"), ("/x", "x")],
)
def test_device_name(mount: str, name: str) -> None:
    assert device_name(mount) == name


@pytest.mark.parametrize("mount", ["/", "/a b", "/a/..", "/a\n", "/a,b", "/\u00e4", ""])
def test_device_name_refuses(mount: str) -> None:
    with pytest.raises(UserError, match="gives no usable name; its last part may hold only"):
        device_name(mount)


def test_defaults_are_resolved() -> None:
    settings = Settings(**GOOD)
    assert 1 <= settings.threads <= 4
    assert (settings.codec, settings.unit_pages, settings.spin_us) == ("zstd-fast", 4, 50)
    assert settings.memory_limit is None
    assert not settings.allow_fusermount
    assert (settings.backing, settings.writeback_limit) == (None, None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"size": 0}, "size must be more than zero, not 0"),
        ({"size": -4096}, "size must be more than zero, not -4096"),
        ({"size": 4097}, "size must be a multiple of 4 KiB, and 4097 bytes is not"),
        ({"size": (16 << 40) + 4096}, "size must be at most 16 TiB, not 17592186048512 bytes"),
        ({"codec": "lzo"}, "unknown codec 'lzo'; choose one of lz4, zstd-fast, zstd, stored"),
        ({"unit_pages": 3}, "unit-pages must be one of 1, 2, 4, 8, 16, not 3"),
        ({"unit_pages": 32}, "unit-pages must be one of 1, 2, 4, 8, 16, not 32"),
        ({"threads": -1}, "threads must be from 0 to 64, not -1"),
        ({"threads": 65}, "threads must be from 0 to 64, not 65"),
        ({"spin_us": -1}, "spin-us must be from 0 to 10000, not -1"),
        ({"spin_us": 10001}, "spin-us must be from 0 to 10000, not 10001"),
        (
            {"memory_limit": 8 << 20, "threads": 2},
            "memory-limit must be at least 12M with this size and 2 threads, not 8388608 bytes",
        ),
        (
            {"memory_limit": 16 << 20, "threads": 9},
            "memory-limit must be at least 33M with this size and 9 threads, not 16777216 bytes",
        ),
        ({"mount": "run/swap0"}, "mount point 'run/swap0' must be an absolute path"),
        ({"mount": "/run\0/swap0"}, "mount point '/run\\x00/swap0' is no path"),
        ({"backing": ""}, "backing '' must be an absolute path"),
        ({"backing": "b.img"}, "backing 'b.img' must be an absolute path"),
        ({"backing": "/b\0"}, "backing '/b\\x00' is no path"),
        ({"backing": f"/{LONG}"}, f"backing '/{LONG}' cannot be used: File name too long"),
        ({"backing": "/b\ud800"}, "backing '/b\\ud800' is no path"),
        (
            {"backing": "/run/vswap/swap0/b"},
            "backing '/run/vswap/swap0/b' lies at the mount point, which hides it; choose another "
            "place",
        ),
        (
            {"backing": "/b", "writeback_limit": -1},
            "writeback-limit must be from 0 to 4611686018427387903 units of 4 KiB, not -1",
        ),
        (
            {"backing": "/b", "writeback_limit": 1 << 62},
            "writeback-limit must be from 0 to 4611686018427387903 units of 4 KiB, "
            "not 4611686018427387904",
        ),
        (
            {"writeback_limit": 1},
            "writeback-limit is nothing without backing; name its file too",
        ),
        (
            {"name": "swap0.log"},
            "device name 'swap0.log' has the name of one of vswap's own files; choose another",
        ),
        (
            {"name": "a/b"},
            "device name 'a/b' gives no usable name; its last part may hold only letters, "
            "digits, _ . and -",
        ),
    ],
)
def test_settings_refuse(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(UserError) as caught:
        Settings(**{**GOOD, **change})
    assert str(caught.value) == reason


def test_the_highest_writeback_limit_is_the_store_s() -> None:
    assert MAX_WRITEBACK_LIMIT == MAX_LIMIT
    Settings(**GOOD, backing="/b", writeback_limit=MAX_LIMIT)
    Settings(**GOOD, backing="/b", writeback_limit=0)


@pytest.mark.parametrize("size", [64 << 20, 1 << 30, 64 << 30])
@pytest.mark.parametrize("threads", [1, 4, 64])
def test_the_least_memory_limit_is_the_store_s(size: int, threads: int) -> None:
    """With the shape that the worker gives the device's state."""
    shape = Shape(
        Geometry(size), segments_for(Geometry(size), threads), threads, channel.BUFFER_SIZE
    )
    least = least_memory(shape)
    change = {"size": size, "threads": threads}
    assert least_memory_limit(Settings(**{**GOOD, **change})) == least
    Settings(**{**GOOD, **change, "memory_limit": least})
    with pytest.raises(UserError) as caught:
        Settings(**{**GOOD, **change, "memory_limit": least - 1})
    named = str(caught.value).split()[5]
    Settings(**{**GOOD, **change, "memory_limit": parse_size(named)})


@pytest.mark.parametrize("size", [4096, 3 << 20, 1 << 30, MAX_DEVICE_SIZE])
def test_a_backing_has_at_most_what_the_store_can_use(size: int) -> None:
    """With a shape as the worker's."""
    shape = Shape(Geometry(size), segments_for(Geometry(size), 4), 4, channel.BUFFER_SIZE)
    most = shape.backing_segments * SEGMENT_SIZE
    assert most >= size, "room for what has no other size"
    check_backing_size(most, size)
    with pytest.raises(UserError) as caught:
        check_backing_size(most + 1, size, "backing-size")
    words = str(caught.value).split()
    assert (words[0], words[-2:]) == ("backing-size", [str(most + 1), "bytes"])
    check_backing_size(parse_size(words[5].rstrip(",")), size)


@given(
    st.builds(
        Settings,
        name=st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True),
        mount=st.just("/some/where \udcff\u00e4"),
        size=st.integers(1, 2**32).map(lambda pages: pages * 4096),
        codec=st.sampled_from(CODECS),
        unit_pages=st.sampled_from([1, 2, 4, 8, 16]),
        threads=st.integers(0, 64),
        spin_us=st.integers(0, 10_000),
        memory_limit=st.none() | st.integers(64 << 30, 2**60),
        allow_fusermount=st.booleans(),
        backing=st.just("/else where \udcff\u00e4"),
        writeback_limit=st.none() | st.integers(0, MAX_LIMIT),
    )
)
def test_json_round_trip(settings: Settings) -> None:
    text = settings.to_json()
    assert "\n" not in text
    assert Settings.from_json(text) == settings


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "settings are not JSON: Expecting value: line 1 column 1 (char 0)"),
        ("[]", "settings must be a JSON object"),
        ("{}", "settings lack 'name'"),
        (json.dumps({**GOOD, "colour": 1}), "settings know no 'colour'"),
        (json.dumps({**GOOD, "threads": "2"}), "settings hold a str for 'threads': '2'"),
        (json.dumps({**GOOD, "threads": True}), "settings hold a bool for 'threads': True"),
        (json.dumps({**GOOD, "size": 4096.0}), "settings hold a float for 'size': 4096.0"),
        (json.dumps({**GOOD, "backing": 7}), "settings hold a int for 'backing': 7"),
        (
            json.dumps({**GOOD, "backing": "/b", "writeback_limit": True}),
            "settings hold a bool for 'writeback_limit': True",
        ),
        (json.dumps({**GOOD, "size": 5}), "size must be a multiple of 4 KiB, and 5 bytes is not"),
    ],
)
def test_from_json_refuses(text: str, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        Settings.from_json(text)
    assert str(caught.value) == reason


@given(st.text() | st.recursive(st.none() | st.text(), st.lists, max_leaves=4).map(json.dumps))
def test_from_json_gives_settings_or_a_user_error(text: str) -> None:
    with pytest.raises(UserError):
        Settings.from_json(text)


def test_from_json_survives_deep_nesting() -> None:
    with pytest.raises(UserError, match="not JSON"):
        Settings.from_json("[" * 200_000)

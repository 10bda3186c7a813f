"""`vswap config`, and what `vswap up` makes of a configuration; no daemon is started."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from swap_support import left_behind

from vswap.errors import UserError
from vswapd import conffile, sizes, tuning
from vswapd.cli import daemon, main, up
from vswapd.cli.confcheck import configured, plan_for
from vswapd.cli.config import entries
from vswapd.cli.interrupt import Interrupts, StoppedError
from vswapd.cli.plan import Plan
from vswapd.conffile import ConfigError
from vswapd.confkeys import KEYS

SOURCES = [str(Path(__file__).parents[2] / part) for part in ("", "daemon")]
NAME = f"conf-{os.getpid()}"
RAM = 16 << 30

Captured = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Make a configuration, of which root trusts whoever wrote it."""

    def make(text: str) -> str:
        file = tmp_path / "c.toml"
        file.write_text(text)
        file.chmod(0o644)
        return str(file)

    return make


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: Patch, kept_signals: None) -> None:
    """A machine of 16 GiB with nothing in /etc, and signals as they were."""
    monkeypatch.setattr(conffile, "CONFIG", tmp_path / "etc/vswap.toml")
    monkeypatch.setattr(conffile, "DROP_INS", tmp_path / "etc/vswap.d")
    monkeypatch.setattr(sizes, "machine_memory", lambda: RAM)


# ---------------------------------------------------------------- what is wrong

# What stands in the file, the key that is told of ("" for the file), and the reason.
WRONG = [
    ("[device.N]\nsize = 4G", "", "is not TOML: Expected newline or end of document after a state"),
    (
        "[device.N]\nsize = '4G'\nsize = '5G'\n",
        "",
        "is not TOML: Cannot overwrite a value (at line",
    ),
    ("[device.N\nsize = 1", "", "is not TOML: Expected ']' at the end of a table declaration (at"),
    ("[devices.N]", "devices", "unknown table; did you mean device?"),
    ("size = '4G'", "size", "stands in no table; write it under [defaults] or one like"),
    ("[device]\nN = 1", "device.N", "must be a table [device.N], not a number"),
    ("[device.'a b']", 'device."a b"', "device name 'a b' gives no usable name; its last part"),
    ("[device.'..']", 'device.".."', "device name '..' gives no usable name; its last part may"),
    (
        f"[device.{'n' * 201}]",
        f"device.{'n' * 201}",
        "a device's name may have 200 characters, not",
    ),
    ("[device.N]\nsizes = '1G'", "device.N.sizes", "unknown key; did you mean size?"),
    ("[device.N]\nmemory_limit = 1", "device.N.memory_limit", "unknown key; did you mean memory-"),
    ("[device.N]\nsize = [1]", "device.N.size", "size must be a size like"),
    ("[device.N]\nsize = 1.5", "device.N.size", "size must be a size like"),
    ("[device.N]\nsize = 'big'", "device.N.size", "size 'big' is not a size; write it like 512M"),
    ("[device.N]\nsize = 0", "device.N.size", "size must be more than zero, not 0"),
    ("[device.N]\nsize = -4096", "device.N.size", "size must be more than zero, not -4096"),
    ("[device.N]\nsize = 5000", "device.N.size", "size must be a multiple of 4 KiB, and 5000 byte"),
    ("[device.N]\nsize = '17T'", "device.N.size", "size must be at most 16 TiB, not 186916976721"),
    ("[device.N]\nsize = '36K'", "device.N.size", "size must be at least 40 KiB for swap, not 368"),
    (
        "[device.N]\nsize = 'ram / 0'",
        "device.N.size",
        "size 'ram / 0' is not a size: it divides by",
    ),
    ("[device.N]\nsize = 'min(ram'", "device.N.size", "size 'min(ram' is not a size: ')' is missi"),
    ("[defaults]\nsize = '1G - 2G'", "defaults.size", "size must be more than zero, not 1G - 2G"),
    ("[defaults]\ncodec = 'lzo'", "defaults.codec", "unknown codec 'lzo'; choose one of lz4, zstd"),
    ("[device.N]\ncodec = 1", "device.N.codec", "codec must be text in quotes, not a number"),
    (
        "[device.N]\nunit-pages = 3",
        "device.N.unit-pages",
        "unit-pages must be one of 1, 2, 4, 8, 1",
    ),
    ("[device.N]\nthreads = '4'", "device.N.threads", "threads must be a whole number, not text"),
    ("[device.N]\nthreads = 65", "device.N.threads", "threads must be from 0 to 64, not 65"),
    ("[device.N]\nspin-us = -1", "device.N.spin-us", "spin-us must be from 0 to 10000, not -1"),
    (
        "[device.N]\nwatchdog = 9999",
        "device.N.watchdog",
        "watchdog must be from 0 to 3600, not 999",
    ),
    ("[device.N]\nspares = 3", "device.N.spares", "spares must be from 0 to 2, not 3"),
    ("[device.N]\nspares = true", "device.N.spares", "spares must be a whole number, not true or"),
    ("[device.N]\npriority = 40000", "device.N.priority", "priority must be from 0 to 32767, not"),
    ("[device.N]\nswapon = 'yes'", "device.N.swapon", "swapon must be true or false, without quot"),
    ("[device.N]\ntune = 1", "device.N.tune", "tune must be true or false, without quotes, not a"),
    ("[device.N]\nmount = 'a/N'", "device.N.mount", "mount 'a/N' must be an absolute path"),
    ('[device.N]\nmount = "/a\\u0000"', "device.N.mount", "mount '/a\\x00' is no path"),
    (
        f"[device.N]\nmount = '/{'n' * 300}'",
        "device.N.mount",
        f"mount '/{'n' * 300}' cannot be used: File name too long",
    ),
    (
        f"[device.N]\nbacking = '/{'n' * 300}'",
        "device.N.backing",
        f"backing '/{'n' * 300}' cannot be used: File name too long",
    ),
    ("[defaults]\nmount = '/a/N'", "defaults.mount", "mount belongs to one device; write it under"),
    (
        "[device.N]\nsize = '1G'\nmemory-limit = '4M'\nthreads = 2",
        "device.N.memory-limit",
        "memory-limit must be at least 12M with this size and 2 threads, not 4194304 bytes",
    ),
    ("[device.N]\nbacking = 'b'", "device.N.backing", "backing 'b' must be an absolute path"),
    ("[device.N]\nbacking-size = '1G'", "device.N.backing-size", "backing-size is nothing without"),
    ("[device.N]\nwriteback-limit = 'none'", "device.N.writeback-limit", "writeback-limit is noth"),
    (
        "[device.N]\nmount = '/mnt/N'\nbacking = '/mnt/N/b'",
        "device.N.backing",
        "backing '/mnt/N/b' lies at the mount point, which hides it; choose another place",
    ),
    (
        "[device.N]\nbacking = 'TMP/b'\nbacking-size = '1P'",
        "device.N.backing-size",
        "backing-size must be at most ",
    ),
    (
        "[device.N]\nbacking = 'TMP/b'\nwriteback-limit = '8000P'\ncodec = 'lz4'\nunit-pages = 5",
        "device.N.unit-pages",
        "unit-pages must be one of ",
    ),
    (
        "[device.N]\nbacking = 'TMP/b'\n[device.N2]\nbacking = 'TMP/./b'",
        "device.N2.backing",
        "backing 'TMP/./b' is that of device N too",
    ),
    (
        "[device.N]\nmount = '/run/vswap/N2'\n[device.N2]",
        "device.N.mount",
        "mount '/run/vswap/N2' is that of device N2 too",
    ),
    (
        "[device.N]\nmount = '/mnt/x'\n[device.N2]\nmount = '/mnt/../mnt/x'",
        "device.N2.mount",
        "mount '/mnt/../mnt/x' is that of device N too",
    ),
    ("[device.N]\nmount = '/'", "device.N.mount", "mounting on / would cover /run/vswap; choose"),
    ("[device.N]\nmount = '/run/vswap'", "device.N.mount", "mounting on /run/vswap would cover"),
    (
        "[device.N]\nmount = '/run/vswap/swap1.log'",
        "device.N.mount",
        "mount point '/run/vswap/swap1.log' has the name of one of vswap's own files; choose ano",
    ),
    (
        "[device.'N.log']",
        'device."N.log"',
        "device name 'N.log' has the name of one of vswap's own files; choose another",
    ),
    ("[device.'tuning.json']", 'device."tuning.json"', "device name 'tuning.json' has the name of"),
]


def vswap(*args: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)}
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "vswapd", *args],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(("text", "key", "reason"), WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_gets_one_line_and_nothing_is_started(
    tmp_path: Path, write: Write, text: str, key: str, reason: str
) -> None:
    def named(template: str) -> str:
        return re.sub(r"\bN(?=2|\b)", NAME, template).replace("TMP", str(tmp_path))

    file = write(named(text))
    ended = vswap("up", "--all", "--config", file)
    place = f"{file}: {named(key)}: " if key else f"{file}: "
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"vswap: {place}{named(reason)}")
    assert ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == [Path(file)]
    for name in (NAME, f"{NAME}2"):
        assert left_behind(Path("/run/vswap") / name) == []
        assert not Path(f"/run/vswap/{name}.log").exists()


def test_all_mistakes_are_told_at_once(write: Write, capsys: Captured) -> None:
    file = write(
        "[defaults]\ncodec = 'lzo'\nzzz = 1\n"
        "[device.a]\nsize = 1\nmemory-limit = '4M'\nspares = 9\n"
        "[device.b]\ntune = 0"
    )
    for command in (["config", "check"], ["config", "show"], ["up"], ["up", "b"], ["up", "--all"]):
        assert main([*command, "--config", file]) == 2
        told = capsys.readouterr()
        assert told.out == ""
        places = [line.split(": ")[2] for line in told.err.splitlines()]
        assert places == [
            "defaults.zzz",
            "device.b.tune",
            "device.a.size",  # memory-limit depends on it, and may be right once that is
            "defaults.codec",
            "device.a.spares",
        ]


def test_mistakes_in_defaults_count_though_every_device_says_otherwise(
    write: Write, capsys: Captured
) -> None:
    file = write(
        "[defaults]\ncodec = 'bogus'\nthreads = 500\nsize = 5\n"
        "[device.swap1]\ncodec = 'lz4'\nthreads = 2\nsize = '1G'"
    )
    for command in (["config", "check"], ["config", "show", "swap0"], ["up"], ["serve", "swap0"]):
        assert main([*command, "--config", file]) == 2
        assert capsys.readouterr().err.splitlines() == [
            f"vswap: {file}: defaults.codec: unknown codec 'bogus'; choose one of lz4, zstd-fast, "
            "zstd, stored",
            f"vswap: {file}: defaults.threads: threads must be from 0 to 64, not 500",
            f"vswap: {file}: defaults.size: size must be a multiple of 4 KiB, and 5 bytes is not",
        ]


def test_what_a_device_may_make_right_is_no_mistake_in_defaults(
    write: Write, capsys: Captured
) -> None:
    """Only to bring up one that makes it wrong is."""
    file = write("[defaults]\nmemory-limit = '20M'\n[device.a]\nsize = '64M'\nthreads = 2")
    assert main(["config", "check", "--config", file]) == 0
    assert capsys.readouterr().out == "ok: 1 device\n"
    assert main(["config", "show", "swap0", "--size", "1T", "--config", file]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    reason = f"{file}: defaults.memory-limit: with --size 1T, memory-limit must be at least "
    assert told.startswith(f"vswap: {reason}")


def test_what_a_lost_file_may_have_said_is_not_missed_in_others(
    tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "etc/vswap.d").mkdir(parents=True)
    for name, text in (
        ("1", "[device.a]\nbacking = /b"),
        ("2", "[device.a]\nbacking-size = '1G'\nsize = 5"),
    ):
        file = tmp_path / f"etc/vswap.d/{name}.toml"
        file.write_text(text)
        file.chmod(0o644)
    assert main(["config", "check"]) == 2
    lost, wrong = capsys.readouterr().err.splitlines()
    assert lost.startswith(f"vswap: {tmp_path}/etc/vswap.d/1.toml: is not TOML: ")
    assert wrong.startswith(f"vswap: {tmp_path}/etc/vswap.d/2.toml: device.a.size: size must be a ")


odd = st.sampled_from([0, 1, -1, 4096, 1 << 70, 1.5, True, "", "none", "1G", "50%", "/a", "/a/b"])
tables = st.dictionaries(st.sampled_from(sorted(KEYS)), odd | st.text(max_size=3), max_size=5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(tables, st.dictionaries(st.sampled_from(["a", "b", "a.b", ""]), tables, max_size=3))
def test_any_configuration_can_be_brought_up_or_is_told_of(
    monkeypatch: Patch, defaults: dict[str, object], devices: dict[str, object]
) -> None:
    document = {"defaults": defaults, "device": devices}
    monkeypatch.setattr(conffile, "read_toml", lambda _path: document)
    try:
        configuration = configured("f")
    except ConfigError as error:
        assert error.lines
        assert all(line.startswith("f: de") and "\n" not in line for line in error.lines)
    else:
        for name in configuration.devices:
            assert plan_for(configuration, name, {}).settings.name == name
            assert len(entries(configuration, name, {})) == len(KEYS)


# ---------------------------------------------------------------- config check, config show


def test_check_counts_devices(write: Write, capsys: Captured) -> None:
    assert main(["config", "check"]) == 0
    assert main(["config", "check", "--config", write("[device.a]")]) == 0
    assert main(["config", "check", "--config", write("[device.a]\n[device.b]")]) == 0
    assert capsys.readouterr() == ("ok: 0 devices\nok: 1 device\nok: 2 devices\n", "")


def test_a_file_that_is_named_must_be_there(capsys: Captured) -> None:
    assert main(["config", "check", "--config", "/nosuch"]) == 2
    reason = "/nosuch: cannot be read: No such file or directory"
    assert capsys.readouterr() == ("", f"vswap: {reason}\n")


CONFIG = """
[defaults]
codec = "zstd"
writeback-limit = "10G"
[device.swap0]
size = "min(ram / 2, 4G)"
memory-limit = "25%"
backing = "/b"
[device.swap1]
size = 67108864
codec = "lz4"
swapon = false
"""


def shown(capsys: Captured, *arguments: str) -> dict[str, Any]:
    assert main(["config", "show", "--json", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_show_tells_what_results_and_who_said_so(write: Write, capsys: Captured) -> None:
    file = write(CONFIG)
    found = shown(capsys, "--config", file)
    assert found["files"] == [file]
    assert [device["name"] for device in found["devices"]] == ["swap0", "swap1"]
    first, second = (device["settings"] for device in found["devices"])
    assert first["size"] == {"value": "min(ram / 2, 4G)", "bytes": 4 << 30, "from": file}
    assert first["memory-limit"] == {"value": "25%", "bytes": 4 << 30, "from": file}
    assert first["writeback-limit"] == {"value": "10G", "bytes": 10 << 30, "from": file}
    assert first["mount"] == {"value": "/run/vswap/swap0", "from": "default"}
    assert first["spin-us"] == {"value": 50, "from": "default"}
    assert second["size"] == {"value": "67108864", "bytes": 64 << 20, "from": file}
    assert (first["codec"]["value"], second["codec"]["value"]) == ("zstd", "lz4")
    # Without a backing, what [defaults] say of one does not count.
    assert second["writeback-limit"] == {"value": None, "bytes": None, "from": "default"}
    assert second["swapon"] == {"value": False, "from": file}


def test_show_is_a_table_for_each_device(write: Write, capsys: Captured) -> None:
    file = write(CONFIG)
    assert main(["config", "show", "--config", file]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == [["[device.swap0]"], ["KEY", "VALUE", "BYTES", "FROM"]]
    assert ["memory-limit", "25%", str(4 << 30), file] in lines
    assert ["swapon", "false", "-", file] in lines
    assert ["backing", "(none)", "-", "default"] in lines


def test_show_one_device(write: Write, capsys: Captured) -> None:
    file = write(CONFIG)
    found = shown(capsys, "swap1", "--config", file)
    assert [device["name"] for device in found["devices"]] == ["swap1"]
    assert main(["config", "show", "swap2", "--config", file]) == 2
    reason = f"no device 'swap2' in {file}; there is: swap0, swap1"
    assert capsys.readouterr() == ("", f"vswap: {reason}\n")


def test_show_what_options_of_up_make_of_it(write: Write, capsys: Captured) -> None:
    file = write(CONFIG)
    typed = ["--codec", "stored", "--memory-limit", "none", "--no-tune", "--spin-us", "50"]
    devices = shown(capsys, *typed, "--config", file)["devices"]
    assert [device["name"] for device in devices] == ["swap0", "swap1"]
    for device in devices:
        found = device["settings"]
        assert found["codec"] == {"value": "stored", "from": "command line"}
        assert found["memory-limit"] == {"value": "none", "bytes": None, "from": "command line"}
        assert found["tune"] == {"value": False, "from": "command line"}
        assert found["spin-us"] == {"value": 50, "from": "command line"}
        assert (found["size"]["from"], found["mount"]["from"]) == (file, "default")


@pytest.mark.parametrize(
    ("typed", "name", "mount"),
    [
        (["--backing", "/c"], "swap0", "/run/vswap/swap0"),
        (["swap1", "--backing", "/c"], "swap1", "/run/vswap/swap1"),
        (["--mount", "/y/swap1"], "swap1", "/y/swap1"),
        (["swap0", "--mount", "/y/swap1"], "swap0", "/y/swap1"),
    ],
)
def test_show_the_one_device_that_up_would_take(
    write: Write, capsys: Captured, typed: list[str], name: str, mount: str
) -> None:
    (device,) = shown(capsys, *typed, "--config", write(CONFIG))["devices"]
    assert (device["name"], device["settings"]["mount"]["value"]) == (name, mount)
    if "--backing" in typed:
        assert device["settings"]["backing"] == {"value": "/c", "from": "command line"}
        assert device["settings"]["writeback-limit"]["value"] == "10G"


def test_show_refuses_what_up_would(write: Write, capsys: Captured) -> None:
    assert main(["config", "show", "--config", write(CONFIG), "--threads", "65"]) == 2
    assert capsys.readouterr() == ("", "vswap: threads must be from 0 to 64, not 65\n")


def test_the_names_of_our_own_files_are_no_devices(capsys: Captured) -> None:
    own = [daemon.log_path("swap0").name, *tuning._FILES]
    for name in own:
        assert main(["up", "--mount", f"/run/vswap/{name}"]) == 2
        reason = "has the name of one of vswap's own files; choose another"
        assert capsys.readouterr().err == f"vswap: mount point '/run/vswap/{name}' {reason}\n"


def test_without_a_configuration_there_is_the_default_device(capsys: Captured) -> None:
    (device,) = shown(capsys)["devices"]
    assert device["name"] == "swap0"
    assert {setting["from"] for setting in device["settings"].values()} == {"default"}


# ---------------------------------------------------------------- what `up` makes of it


@pytest.fixture
def plans(monkeypatch: Patch) -> list[Plan]:
    """What `up` would carry out."""
    found: list[Plan] = []

    def bring_up(plan: Plan, _signals: Interrupts) -> str:
        found.append(plan)
        return f"/dev/loop{len(found)}"

    monkeypatch.setattr(up, "check_swap", lambda _command, _plan: None)
    monkeypatch.setattr(up, "_bring_up", bring_up)
    return found


def test_the_command_line_goes_over_the_file_over_defaults(
    plans: list[Plan], write: Write, capsys: Captured
) -> None:
    file = write(CONFIG)
    assert main(["up", "--config", file, "--codec", "stored", "--memory-limit", "none"]) == 0
    (plan,) = plans
    assert capsys.readouterr() == ("/dev/loop1\n", "")
    found = plan.settings
    assert (found.name, found.mount) == ("swap0", "/run/vswap/swap0")
    assert (found.size, found.codec, found.memory_limit) == (4 << 30, "stored", None)
    assert (found.backing, found.writeback_limit) == ("/b", (10 << 30) // 4096)
    assert (found.spin_us, plan.priority, plan.swapon, plan.tune) == (50, None, True, True)


def test_an_option_that_says_the_default_goes_over_the_file_too(
    plans: list[Plan], write: Write
) -> None:
    file = write("[device.swap0]\nsize = '64M'\nspin-us = 7\nswapon = false\ntune = false")
    typed = ["--size", "1G", "--spin-us", "50", "--swapon"]
    assert main(["up", "--config", file, *typed]) == 0
    (plan,) = plans
    assert (plan.settings.size, plan.settings.spin_us) == (1 << 30, 50)
    assert (plan.swapon, plan.tune) == (True, False)


def test_which_device_comes_up(plans: list[Plan], write: Write, tmp_path: Path) -> None:
    file = write("[defaults]\nthreads = 3\n[device.a]\nmount = '/mnt/x'\ncodec = 'lz4'")
    for arguments in (
        ["a"],
        [],
        ["--mount", "/y/a"],
        ["a", "--mount", "/y/b"],
        ["--mount", "/y/c"],
    ):
        assert main(["up", *arguments, "--config", file]) == 0
    found = [(plan.settings.name, plan.settings.mount, plan.settings.codec) for plan in plans]
    assert found == [
        ("a", "/mnt/x", "lz4"),
        ("swap0", "/run/vswap/swap0", "zstd-fast"),
        ("a", "/y/a", "lz4"),
        ("a", "/y/b", "lz4"),
        ("c", "/y/c", "zstd-fast"),
    ]
    assert {plan.settings.threads for plan in plans} == {3}


def test_swap0_needs_no_configuration(plans: list[Plan], capsys: Captured) -> None:
    assert main(["up"]) == main(["up", "swap0"]) == 0
    assert plans[0] == plans[1]
    capsys.readouterr()
    assert main(["up", "swap1"]) == 2
    assert "no device 'swap1' in " in capsys.readouterr().err


def test_what_only_the_command_line_makes_wrong_is_one_line(
    plans: list[Plan], write: Write, capsys: Captured
) -> None:
    file = write("[device.swap0]\nsize = '64M'\nmemory-limit = '64M'\nthreads = 2")
    assert main(["up", "--config", file, "--size", "1T"]) == 2
    told = capsys.readouterr().err
    reason = f"{file}: device.swap0.memory-limit: with --size 1T, memory-limit must be at least "
    assert told.startswith(f"vswap: {reason}")
    assert told.count("\n") == 1
    for typed, reason in (
        (["--memory-limit", "4M"], "memory-limit must be at least 10M with this size and 2 thr"),
        (["--size", "1T", "--memory-limit", "4M"], "memory-limit must be at least "),
        (["--threads", "-1"], "threads must be from 0 to 64, not -1"),
    ):
        assert main(["up", "--config", file, *typed]) == 2
        told = capsys.readouterr().err
        assert told.startswith(f"vswap: {reason}")
        assert told.count("\n") == 1
    assert plans == []


@pytest.mark.parametrize(
    ("typed", "said"), [("--swapon", "with --swapon, "), ("--no-swapon", None)]
)
def test_a_switch_can_make_a_size_wrong(
    plans: list[Plan], write: Write, capsys: Captured, typed: str, said: str | None
) -> None:
    file = write("[device.swap0]\nsize = '20K'\nswapon = false")
    assert main(["up", "--config", file, typed]) == (2 if said else 0)
    place = f"vswap: {file}: device.swap0.size: {said}size must be at least 40 KiB"
    assert capsys.readouterr().err.startswith(place if said else "")
    assert len(plans) == (0 if said else 1)


def test_all_devices_come_up_in_order(plans: list[Plan], write: Write, capsys: Captured) -> None:
    file = write("[device.b]\n[device.a]\nspin-us = 1\n[device.c]\nswapon = false")
    assert main(["up", "--all", "--config", file, "--no-tune"]) == 0
    assert capsys.readouterr() == ("b /dev/loop1\na /dev/loop2\nc /dev/loop3\n", "")
    assert [plan.settings.spin_us for plan in plans] == [50, 1, 50]
    assert [plan.swapon for plan in plans] == [True, True, False]
    assert not any(plan.tune for plan in plans)


@pytest.mark.parametrize(("error", "code"), [(UserError("no room"), 2), (OSError("no room"), 1)])
def test_one_that_fails_is_no_reason_not_to_try_the_others(
    monkeypatch: Patch,
    plans: list[Plan],
    write: Write,
    capsys: Captured,
    error: Exception,
    code: int,
) -> None:
    def check(_command: str, plan: Plan) -> None:
        if plan.settings.name == "a":
            raise error

    monkeypatch.setattr(up, "check_swap", check)
    assert main(["up", "--all", "--config", write("[device.a]\n[device.b]")]) == code
    assert capsys.readouterr() == ("b /dev/loop1\n", "vswap: a: no room\n")


def test_an_interruption_ends_all(
    monkeypatch: Patch, plans: list[Plan], write: Write, capsys: Captured
) -> None:
    def bring_up(plan: Plan, _signals: Interrupts) -> str:
        plans.append(plan)
        if plan.settings.name == "b":
            raise StoppedError("interrupted; everything undone")
        return "/dev/loop1"

    monkeypatch.setattr(up, "_bring_up", bring_up)
    file = write("[device.a]\n[device.b]\n[device.c]")
    assert main(["up", "--all", "--config", file]) == 130
    told = "vswap: b: interrupted; everything undone\n"
    assert capsys.readouterr() == ("a /dev/loop1\n", told)
    assert len(plans) == 2


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["a"], "--all brings up every device; leave a out, or --all"),
        (["--mount", "/m"], "--mount is for one device, and --all brings up every one"),
        (["--backing", "/b"], "--backing is for one device, and --all brings up every one"),
    ],
)
def test_all_is_not_for_one(
    plans: list[Plan], write: Write, capsys: Captured, arguments: list[str], reason: str
) -> None:
    file = write("[device.a]")
    assert main(["up", "--all", *arguments, "--config", file]) == 2
    assert capsys.readouterr() == ("", f"vswap: {reason}\n")
    assert plans == []


def test_all_of_nothing(plans: list[Plan], capsys: Captured, tmp_path: Path) -> None:
    assert main(["up", "--all"]) == 2
    usual = f"{tmp_path}/etc/vswap.toml or {tmp_path}/etc/vswap.d/*.toml"
    reason = f"no device in {usual}; --all brings up those named there"
    assert capsys.readouterr() == ("", f"vswap: {reason}\n")

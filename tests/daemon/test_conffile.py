"""Configuration files: which are read, what goes over what, and whom root trusts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vswapd import conffile
from vswapd.conffile import Configuration, Problem, Setting, place_of, read_configuration

Patch = pytest.MonkeyPatch


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: Patch) -> Path:
    """Stands for /etc, with no configuration in it."""
    monkeypatch.setattr(conffile, "CONFIG", tmp_path / "vswap.toml")
    monkeypatch.setattr(conffile, "DROP_INS", tmp_path / "vswap.d")
    return tmp_path


def write(path: Path, text: str | bytes) -> str:
    """A file that root trusts."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(0o644)
    return str(path)


def read(file: str | None = None) -> Configuration:
    """What is read, of which nothing is wrong."""
    problems: list[Problem] = []
    configuration = read_configuration(file, problems)
    assert problems == []
    return configuration


def lines(file: str | None) -> list[str]:
    """What is wrong with it, without the name of the file."""
    problems: list[Problem] = []
    read_configuration(file, problems)
    return [str(problem).removeprefix(f"{file}: ") for problem in problems]


def test_no_files_are_no_configuration(etc: Path) -> None:
    configuration = read()
    assert configuration == Configuration(f"{etc}/vswap.toml or {etc}/vswap.d/*.toml")
    assert configuration.settings("swap0") == {}


def test_drop_ins_go_over_the_file_by_their_names(etc: Path) -> None:
    main = write(etc / "vswap.toml", '[device.a]\nsize = "1G"\ncodec = "lz4"\nspin-us = 1')
    late = write(etc / "vswap.d/20.toml", '[device.a]\nsize = "3G"\n[device.b]')
    early = write(etc / "vswap.d/10.toml", '[device.a]\nsize = "2G"\ncodec = "zstd"')
    write(etc / "vswap.d/30.toml~", "no TOML")
    write(etc / "vswap.d/.30.toml", "no TOML")
    configuration = read()
    assert configuration.files == [main, early, late]
    assert list(configuration.devices) == ["a", "b"]
    assert configuration.settings("a") == {
        "size": Setting("3G", late, "device.a"),
        "codec": Setting("zstd", early, "device.a"),
        "spin-us": Setting(1, main, "device.a"),
    }


def test_drop_ins_need_no_file_beside_them(etc: Path) -> None:
    write(etc / "vswap.d/a.toml", "[device.swap0]")
    assert list(read().devices) == ["swap0"]


def test_a_device_goes_over_defaults_wherever_they_stand(etc: Path) -> None:
    main = write(etc / "vswap.toml", '[device.a]\ncodec = "lz4"')
    late = write(etc / "vswap.d/a.toml", '[defaults]\ncodec = "zstd"\nthreads = 2')
    found = read().settings("a")
    assert found["codec"] == Setting("lz4", main, "device.a")
    assert found["threads"] == Setting(2, late, "defaults")
    assert read().settings("b")["codec"] == Setting("zstd", late, "defaults")


def test_a_file_that_is_named_is_read_alone(etc: Path) -> None:
    write(etc / "vswap.toml", "no TOML")
    write(etc / "vswap.d/a.toml", "no TOML")
    file = write(etc / "other", "[device.b]\nsize = 4096")
    assert read(file).devices == {"b": {"size": Setting("4096", file, "device.b")}}


def test_every_file_is_looked_at_whatever_the_others_hold(etc: Path) -> None:
    write(etc / "vswap.toml", "[device.a]\nsize = ")
    write(etc / "vswap.d/a.toml", "[device.a]\ncodec = 1")
    problems: list[Problem] = []
    read_configuration(None, problems)
    assert [(problem.file, problem.place) for problem in problems] == [
        (str(etc / "vswap.toml"), ""),
        (str(etc / "vswap.d/a.toml"), "device.a.codec"),
    ]


def test_drop_ins_that_are_no_directory(etc: Path) -> None:
    write(etc / "vswap.d", "")
    problems: list[Problem] = []
    read_configuration(None, problems)
    assert list(map(str, problems)) == [f"{etc}/vswap.d: cannot be read: Not a directory"]


def test_a_link_that_leads_nowhere_is_not_an_absent_file(etc: Path) -> None:
    (etc / "vswap.toml").symlink_to("nosuch")
    problems: list[Problem] = []
    read_configuration(None, problems)
    reason = "cannot be read: No such file or directory"
    assert list(map(str, problems)) == [f"{etc}/vswap.toml: {reason}"]


# ---------------------------------------------------------------- files that are not read


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[device.a]\nsize 4G", "is not TOML: Expected '=' after a key in a key/value pair (at l"),
        (b"[device.a]\n\nsize = 4G", "is not TOML: Expected newline or end of document after a st"),
        (b"[defaults]\nx = '\xff'", "is not TOML: bytes that are not UTF-8 (at line 2)"),
        (
            "\ufeff[device.a]\n".encode(),
            "starts with a byte order mark, which TOML has not; save it without one",
        ),
        (b"a = " + b"[" * 100_000, "is not TOML that anybody needs: nested too deeply"),
        (b"a = " + b"9" * 5000, "is not TOML: "),
        (b"#" * (1 << 20) + b"#", "is longer than 1 MiB, which no configuration is"),
    ],
    ids=range(7),
)
def test_what_is_not_toml(tmp_path: Path, content: bytes, reason: str) -> None:
    (line,) = lines(write(tmp_path / "c", content))
    assert line.startswith(reason)


def test_the_line_of_a_mistake_is_told(tmp_path: Path) -> None:
    (line,) = lines(write(tmp_path / "c", "[device.a]\nsize = 1\nsize = 2"))
    assert "at line 3" in line


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert lines(str(tmp_path / "fifo")) == ["is not a regular file"]
    assert lines(str(tmp_path)) == ["is not a regular file"]
    assert lines("/dev/null") == ["is not a regular file"]


def test_a_name_that_cannot_be_printed_is_shown_so(tmp_path: Path) -> None:
    problems: list[Problem] = []
    read_configuration("/nosuch\n\udcff\x1b", problems)
    read_configuration("", problems)
    assert str(problems.pop()) == "'': cannot be read: No such file or directory"
    assert str(problems[0]).startswith(r"'/nosuch\n\udcff\x1b': cannot be read: ")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a file of another user")
@pytest.mark.parametrize(
    ("user", "mode", "reason"),
    [
        (0, 0o664, "can be written by others than root; `chmod go-w` it"),
        (0, 0o646, "can be written by others than root; `chmod go-w` it"),
        (1000, 0o600, "belongs to user 1000, who could change it; `chown root` it"),
    ],
)
def test_root_trusts_only_its_own_files(
    tmp_path: Path, monkeypatch: Patch, user: int, mode: int, reason: str
) -> None:
    file = tmp_path / "c"
    write(file, "[device.a]")
    file.chmod(mode)
    os.chown(file, user, 0)
    (tmp_path / "link").symlink_to(file)
    assert lines(str(file)) == [reason]
    assert lines(str(tmp_path / "link")) == [reason]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert lines(str(file)) == []


# ---------------------------------------------------------------- what stands in them


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("size = 1", "size: stands in no table; write it under [defaults] or one like"),
        ("sise = 1", "sise: unknown key; did you mean size?"),
        ("[devices.a]", "devices: unknown table; did you mean device?"),
        ("[zzz]", "zzz: unknown table; there are defaults, device"),
        ("defaults = 1", "defaults: must be a table [defaults], not a number"),
        ("device = []", "device: must be tables like [device.swap0], not a list"),
        ("[[device]]", "device: must be tables like [device.swap0], not a list"),
        ("[device]\na = 1", "device.a: must be a table [device.a], not a number"),
        ("[device]\nsize = 1", "device.size: stands under [device]; write it under one like"),
        ('[device."a/b"]', "device.\"a/b\": device name 'a/b' gives no usable name; its last"),
        ('[device."\\n"]', 'device."\\n": device name '),
        ("[device.a]\nmemory_limit = 1", "device.a.memory_limit: unknown key; did you mean memory"),
        ("[device.a]\nzzz = 1", "device.a.zzz: unknown key; there are size, mount, codec, "),
        ("[device.a.size]", 'device.a.size: size must be a size like "4G" or a number of bytes'),
        ('[device.a]\n"\\u0007" = 1', 'device.a."\\u0007": unknown key; there are '),
        ("[device.a]\nthreads = 2020-01-01", "device.a.threads: threads must be a whole number, "),
        ("[device.a]\nthreads = true", "device.a.threads: threads must be a whole number, not tru"),
        ("[device.a]\nsize = nan", "device.a.size: size must be a size like"),
        ("[device.a]\nsize = true", "device.a.size: size must be a size like"),
        (f"[device.a]\nsize = 0x{'f' * 9999}", "device.a.size: size must be a number of at most"),
        ("[defaults]\nmount = '/a'", "defaults.mount: mount belongs to one device; write it under"),
    ],
)
def test_what_stands_wrong(tmp_path: Path, text: str, line: str) -> None:
    (found,) = lines(write(tmp_path / "c", text))
    assert found.startswith(line)
    assert found.isprintable()


def test_all_that_is_wrong_is_told(tmp_path: Path) -> None:
    file = write(tmp_path / "c", 'size = 1\n[defaults]\nx = 1\n[device.a]\ntune = 1\nsize = "0"')
    places = [line.partition(":")[0] for line in lines(file)]
    assert places == ["size", "defaults.x", "device.a.tune", "device.a.size"]


def test_a_name_with_dots_is_quoted() -> None:
    assert (place_of("swap-0_a"), place_of("a.b")) == ("device.swap-0_a", 'device."a.b"')


names = st.sampled_from(["defaults", "device", "a", "size", "mount", "tune", "spin-us", "\n"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda parts: st.lists(parts, max_size=2) | st.dictionaries(names, parts, max_size=3),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(names, values, max_size=3))
def test_any_document_is_merged_or_told_of(monkeypatch: Patch, document: dict[str, object]) -> None:
    monkeypatch.setattr(conffile, "read_toml", lambda _path: document)
    assert all("\n" not in line for line in lines("f"))

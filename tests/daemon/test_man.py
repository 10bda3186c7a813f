"""The manual pages: complete, and without a complaint of those that print them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from vswapd.cli import main
from vswapd.cli.columns import described
from vswapd.cli.group import _vswap as root
from vswapd.confkeys import KEYS
from vswapd.man import PAGES, roff
from vswapd.man.commands import _examples, _lists, leaves
from vswapd.usage import COMMANDS

Captured = pytest.CaptureFixture[str]
ENVIRONMENT = {**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "100", "MAN_KEEP_FORMATTING": ""}


OTHERS = {"systemctl", "curl", "gzip", "man", "echo", "eval", "source"}


@pytest.fixture(params=PAGES)
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    found = PAGES[request.param]
    file = tmp_path / found.file
    file.write_text(found.render(root))
    return file


def ran(*argv: str) -> subprocess.CompletedProcess[str]:
    if shutil.which(argv[0]) is None:
        pytest.skip(f"needs {argv[0]}")
    return subprocess.run(argv, capture_output=True, text=True, env=ENVIRONMENT, check=False)


@pytest.mark.parametrize(
    "argv",
    [
        ["groff", "-man", "-ww", "-Tutf8"],
        ["man", "--warnings", "-l"],
        ["mandoc", "-Tlint", "-Wwarning"],
    ],
    ids=lambda argv: argv[0],
)
def test_nobody_complains(argv: list[str], page: Path) -> None:
    done = ran(*argv, str(page))
    said = done.stdout if argv[0] == "mandoc" else done.stderr
    complaints = [line for line in said.splitlines() if "missing date" not in line]
    assert complaints == []
    assert done.returncode == (2 if argv[0] == "mandoc" else 0)  # that there is no date


def shown(page: str, tmp_path: Path) -> str:
    """What a person reads, on one line, with words undivided."""
    file = tmp_path / "page"
    file.write_text(PAGES[page].render(root))
    done = ran("groff", "-man", "-rHY=0", "-Tutf8", "-P-cbou", str(file))
    return " ".join(done.stdout.split())


def test_each_command_with_all_its_options_is_in_vswap_1(tmp_path: Path) -> None:
    text = shown("vswap", tmp_path)
    names = [context.command_path for context in leaves(root)]
    assert {"vswap up", "vswap config show", "vswap backing detach"} <= set(names)
    for context in leaves(root):
        assert f"{context.command_path} [OPTIONS]" in text
        for option in context.command.params:
            if isinstance(option, click.Option):
                assert all(name in text for name in option.opts), option.opts
    assert "vswap up --size 'min(ram / 2, 4G)' --memory-limit 25%" in text


def test_what_commands_list_in_their_help_is_in_vswap_1(tmp_path: Path) -> None:
    text = shown("vswap", tmp_path)
    for name, about in described():
        assert f"{name} {about}" in text
    assert text.count("ctl check && echo sound") == 1
    assert text.count("vswap status -o NAME,TOTAL,LIMIT these columns only") == 1


def typed(line: str) -> list[list[str]]:
    """The commands in a line of examples, without what stands at some distance about them."""
    lexer = shlex.shlex(re.split(r"\s{2,}", line.strip())[0], posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("&|;"):
            found.append([])
        else:
            found[-1].append(word)
    return [words[: words.index(">")] if ">" in words else words for words in found if words]


def examples() -> list[str]:
    """All that are given for a command."""
    helps = [context.command for context in leaves(root)] + [root]
    lists = [typed for context in leaves(root) for typed, _ in _lists(context).get("Examples", [])]
    return lists + [line for command in helps for line in _examples(command.epilog)]


@pytest.mark.parametrize("line", examples())
def test_an_example_can_be_typed(line: str) -> None:
    for name, *words in typed(line):
        if name != "vswap":
            assert name in OTHERS
            continue
        command: click.Command = root
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        command.make_context(name, words)  # nothing is done


def test_an_option_of_several_commands_is_explained_alike() -> None:
    commands = [context.command for context in leaves(root)]
    helps = [
        option.help
        for command in commands
        for option in command.params
        if isinstance(option, click.Option) and "--config" in option.opts
    ]
    assert (len(helps), len(set(helps))) == (5, 1)


def test_vswap_1_says_what_doctor_s_exit_status_is(tmp_path: Path) -> None:
    text = shown("vswap", tmp_path)
    _, _, statuses = text.partition(" EXIT STATUS ")
    assert re.search(r" 1 \D*vswap doctor\W+warnings\D* 2 \D*vswap doctor\D*failures", statuses)


def test_each_key_is_in_vswap_toml_5_with_its_default(tmp_path: Path) -> None:
    text = shown("vswap.toml", tmp_path)
    entries = re.split(rf" (?=(?:{'|'.join(KEYS)}) [A-Z])", text)
    assert [entry.split()[0] for entry in entries[1:]] == list(KEYS)
    for key, entry in zip(KEYS.values(), entries[1:], strict=True):
        assert f" Takes {key.values}. Default: " in entry
        if key.default is not None:
            assert re.search(rf' Default: "?{key.default}"?[.,]', entry, re.I), key.name
        assert key.common or "Not in [defaults]." in entry


@pytest.mark.parametrize(
    "said",
    [
        'Takes "lz4", "zstd-fast", "zstd" or "stored". Default: "zstd-fast".',
        "Takes 0 to 64. Default: 0, which is one per processor, at most 4.",
        'Takes a size or "none". Default: "none", which is no limit but the size.',
        "Takes 0 to 32767. Default: the kernel's choice.",
        "Default: 2 on machines with 2 GiB of memory or more, 1 from 300 MiB on.",
        "Default: /run/vswap/NAME. Not in [defaults].",
    ],
)
def test_vswap_toml_5_says_what_values_there_are_and_what_a_default_means(
    said: str, tmp_path: Path
) -> None:
    assert said in shown("vswap.toml", tmp_path)


def test_each_command_of_the_daemon_is_in_vswapd_8(tmp_path: Path) -> None:
    text = shown("vswapd", tmp_path)
    for name, (_, about) in COMMANDS.items():
        assert name in text
        assert about in text


def test_the_same_code_gives_the_same_page(capsys: Captured) -> None:
    assert main(["man", "vswapd"]) == 0
    assert capsys.readouterr().out == PAGES["vswapd"].render(root)


def test_a_page_that_is_none_is_a_mistake(capsys: Captured) -> None:
    assert main(["man", "zram"]) == 2
    reason = "vswap: no page 'zram'; there are vswap, vswapd, vswap.toml\n"
    assert capsys.readouterr().err == reason


# What would be a request, an escape, a typographic sign or a font if it were not escaped.
HOSTILE = [".so /etc/passwd", "'tis", r"\fB\n(.x", "a-b --c", "`x' ^ ~", '"quoted"', "..."]


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_printed_as_it_is(text: str, tmp_path: Path) -> None:
    file = tmp_path / "page"
    lines = [roff.title("x", 1, "v", "m"), roff.section("s"), *roff.example([text])]
    file.write_text("\n".join([*lines, ""]))
    done = ran("groff", "-man", "-ww", "-Tutf8", "-P-cbou", str(file))
    assert done.stderr == ""
    assert text in done.stdout

"""ctl: a line is a command, and its result can be read."""

from __future__ import annotations

import pytest

from vswap.errors import UserError
from vswapd.control import Control


def refuse(arguments: list[str]) -> str:
    raise UserError(f"cannot do {' and '.join(arguments)}")


@pytest.fixture
def control() -> Control:
    return Control({"echo": " ".join, "refuse": refuse})


def test_nothing_was_said_before_the_first_command(control: Control) -> None:
    assert control.result == ""


def test_a_command_s_answer_is_the_result(control: Control) -> None:
    assert control.run("echo some words\n")
    assert control.result == "some words\n"


@pytest.mark.parametrize("line", ["echo a b", "echo a b\n", "  echo\ta   b \n", "echo a b\r\n"])
def test_a_line_is_words_between_blanks(line: str, control: Control) -> None:
    assert control.run(line)
    assert control.result == "a b\n"


def test_a_refused_command_tells_why(control: Control) -> None:
    assert not control.run("refuse this that")
    assert control.result == "error: cannot do this and that\n"


def test_an_unknown_command_is_refused(control: Control) -> None:
    assert not control.run("format c:")
    assert control.result == "error: unknown command 'format'; try: help\n"


@pytest.mark.parametrize("line", ["", "\n", "   \n"])
def test_no_command_is_refused(line: str, control: Control) -> None:
    assert not control.run(line)
    assert control.result == "error: no command; try: help\n"


def test_commands_are_told_apart_by_case(control: Control) -> None:
    assert not control.run("HELP")


def test_help_lists_all_commands(control: Control) -> None:
    assert control.run("help")
    assert control.result == "commands: echo help refuse\n"


def test_the_last_result_counts(control: Control) -> None:
    control.run("refuse it")
    control.run("echo done")
    assert control.result == "done\n"


def test_a_result_is_one_line_whatever_was_written(control: Control) -> None:
    control.run("\x00\x1b[2J\ufffd")
    assert control.result.count("\n") == 1
    assert control.result[:-1].isprintable()

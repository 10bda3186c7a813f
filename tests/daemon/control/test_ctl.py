"""ctl: a line is a command, and its result can be read."""

from __future__ import annotations

import errno
import logging
import threading

import pytest
import trio
import trio.testing

from vswap.errors import FullError, UserError
from vswapd.control import Control
from vswapd.control.ctl import Action, Command, FoundError, Result

SECONDS = 10


def echo(rest: str) -> Action:
    return lambda: rest


def refuse(rest: str) -> Action:
    raise UserError(f"cannot do {rest}")


def failing(error: Exception) -> Command:
    def act() -> str:
        raise error

    return lambda _rest: act


COMMANDS = {
    "echo": echo,
    "refuse": refuse,
    "refuse_later": failing(UserError("too small")),
    "find": failing(FoundError("PROBLEMS: 2\nfirst\nsecond")),
    "full": failing(FullError("no room")),
    "no_memory": failing(OSError(errno.ENOMEM, "Cannot allocate memory")),
    "odd": failing(OSError("odd")),
}


@pytest.fixture
def control() -> Control:
    return Control(COMMANDS)


def run(control: Control, line: str) -> Result:
    return trio.run(control.run, line)


def test_nothing_was_said_before_the_first_command(control: Control) -> None:
    assert control.last == Result("")


def test_a_command_s_answer_is_the_result(control: Control) -> None:
    assert run(control, "echo some words\n") == control.last == Result("some words\n")


@pytest.mark.parametrize(
    ("line", "rest"),
    [
        ("echo", ""),
        ("echo  \n", ""),
        ("echo a b", "a b"),
        ("echo a b\n", "a b"),
        ("  echo\ta   b \n", "a   b "),
        ("echo a b\r\n", "a b\r"),
        ("echo a\nb\n", "a\nb"),
        ("echo a\n\n", "a\n"),
    ],
)
def test_a_command_gets_the_rest_of_the_line_as_it_is(
    line: str, rest: str, control: Control
) -> None:
    assert run(control, line).text == rest + "\n"


@pytest.mark.parametrize(
    ("line", "text", "code"),
    [
        ("refuse this that", "error: cannot do this that\n", errno.EINVAL),
        ("refuse_later", "error: too small\n", errno.EINVAL),
        ("format c:", "error: unknown command 'format'; try: help\n", errno.EINVAL),
        ("", "error: no command; try: help\n", errno.EINVAL),
        ("\n", "error: no command; try: help\n", errno.EINVAL),
        ("   \n", "error: no command; try: help\n", errno.EINVAL),
        ("ECHO", "error: unknown command 'ECHO'; try: help\n", errno.EINVAL),
        ("find", "PROBLEMS: 2\nfirst\nsecond\n", errno.EUCLEAN),
        ("full", "error: no room\n", errno.ENOSPC),
        ("no_memory", "error: Cannot allocate memory\n", errno.ENOMEM),
        ("odd", "error: odd\n", errno.EIO),
    ],
)
def test_what_fails_has_a_reason_and_an_errno(
    line: str, text: str, code: int, control: Control
) -> None:
    assert run(control, line) == Result(text, code)


@pytest.mark.parametrize(
    "command", [failing(ZeroDivisionError()), failing(MemoryError()), lambda _rest: 1 // 0]
)
def test_a_fault_of_ours_is_a_result_too(
    command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    result = run(Control({"fail": command}), "fail\n")
    assert result.code == errno.EIO
    assert result.text == "error: a fault of the daemon, which its log tells more about\n"
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert caplog.records[0].exc_info


def test_the_last_result_counts(control: Control) -> None:
    run(control, "refuse it")
    run(control, "echo done")
    assert control.last == Result("done\n")


def test_a_reason_is_one_line_whatever_was_written(control: Control) -> None:
    text = run(control, "\x00\x1b[2J\ufffd").text
    assert text.count("\n") == 1
    assert text[:-1].isprintable()


# --- One at a time, beside everything else ----------------------------------------------------


class Steered:
    """A command that is in progress until the test lets it end."""

    def __init__(self) -> None:
        self.began = trio.Event()
        self.may_end = threading.Event()
        self.running = self.most = 0

    def __call__(self, rest: str) -> Action:
        return lambda: self._act(rest)

    def _act(self, answer: str) -> str:
        self.running += 1
        self.most = max(self.most, self.running)
        trio.from_thread.run_sync(self.began.set)
        assert self.may_end.wait(SECONDS)
        self.running -= 1
        return answer


def test_a_command_is_done_beside_the_loop() -> None:
    async def act() -> None:
        steered = Steered()
        control = Control({"wait": steered})
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(control.run, "wait 1")
                await steered.began.wait()  # so the loop goes on
                assert control.last == Result("")
                steered.may_end.set()
        assert control.last == Result("1\n")

    trio.run(act)


def test_commands_wait_for_each_other() -> None:
    async def act() -> None:
        steered = Steered()
        control = Control({"wait": steered})
        results: list[Result] = []

        async def one(line: str) -> None:
            results.append(await control.run(line))

        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(one, f"wait {number}")
                await steered.began.wait()
                await trio.testing.wait_all_tasks_blocked()
                steered.may_end.set()
        assert sorted(result.text for result in results) == ["0\n", "1\n", "2\n"]
        assert steered.most == 1

    trio.run(act)


def test_a_wrong_command_need_not_wait() -> None:
    async def act() -> None:
        steered = Steered()
        control = Control({"wait": steered, "refuse": refuse})
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(control.run, "wait 1")
                await steered.began.wait()
                assert (await control.run("refuse it")).code == errno.EINVAL
                steered.may_end.set()

    trio.run(act)


def test_the_end_of_the_daemon_waits_for_no_command() -> None:
    may_end = threading.Event()

    async def act() -> None:
        steered = Steered()
        steered.may_end = may_end
        control = Control({"wait": steered})
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(control.run, "wait 1")
                await steered.began.wait()
                nursery.cancel_scope.cancel()

    trio.run(act)
    may_end.set()

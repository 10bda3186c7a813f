"""A standby: a worker to be, for which everything is done that can be done beforehand.

It was forked with all code in memory. It locks that memory and has all of it as its own
(`vswapd.ownpages`), maps the state, and serves a scratch device to have what it will need
beside. Then it waits: until it is told to serve, or its supervisor ends.

If nobody serves meanwhile, all that would be in vain: while memory is short there is none to be had
until somebody does. Then it is told to hurry, does without what can be done without, and makes up
for it when it serves.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from vswap import libc
from vswap.geometry import Geometry
from vswap.proto import decode_init_reply
from vswap.store import Shape, State, segments_for
from vswapd import channel, memory
from vswapd.channel import Handshake
from vswapd.config import Settings
from vswapd.control import Rings
from vswapd.logs import start_log, stop_log
from vswapd.messages import Link, Message
from vswapd.notify import reason
from vswapd.office import Office
from vswapd.ownpages import STACK_SIZE, Run, make_own, make_own_in_time
from vswapd.warmup import steps
from vswapd.worker import Charge, Worker, policy_of

__all__ = ["main"]

_SPARE = 1 << 20
"""Bytes that must be free above what the kernel keeps back, for something that is not urgent."""

_log = logging.getLogger(__name__)


def main(
    link: Link,
    settings: Settings,
    preparation: memory.Preparation,
    pages: Sequence[Run] = (),
    *,
    hurry: bool = False,
) -> int:
    """The life of a process that has just been forked; answers its exit status.

    `pages` are those that it is to have of its own, and `hurry` is whether nobody serves.
    """
    libc.prctl(libc.PR_SET_NAME, b"vswap-standby")
    link.send("hello", pid=os.getpid())
    start_log()
    try:
        memory.prepare_fork(_log.warning)
        told = link.receive()
        if told is None:
            return 0
        if not hurry:
            _give_way(link)
        has_time = partial(_has_time, link, hurry=hurry)
        left = make_own(pages, has_time)
        threading.stack_size(STACK_SIZE)
        state, rings = _prepare(link, settings, *told)
        _warm(settings, has_time)
        received = _wait(link)
        if received is None:
            return 0
        libc.prctl(libc.PR_SET_NAME, b"vswap-worker")
        memory.take_precedence()
        charge, then = _charge(*received), partial(_make_up, left)
        worker = Worker(settings, preparation, state, Office(link), charge, rings, then)
        return 0 if worker.serve() else 1
    except Exception as error:
        if not link.send("failed", why=reason(error)):
            _log.exception("a worker has failed")
        return 2
    finally:
        stop_log()


def shape_of(settings: Settings) -> Shape:
    """The shape of the state that these settings need."""
    geometry = Geometry(settings.size)
    segments = segments_for(geometry, settings.threads)
    return Shape(geometry, segments, settings.threads, channel.BUFFER_SIZE)


def _prepare(
    link: Link, settings: Settings, message: Message, fds: list[int]
) -> tuple[State, Rings]:
    """The state: that which the supervisor holds, or a new one for it to hold. So the history's.

    Raises `StateError` for a state of another version.
    """
    # A supervisor of older code has none, and says nothing of it.
    rings = Rings.of(fds.pop() if message.get("history") else None)
    shape = shape_of(settings)
    state = State.attach(shape, fds) if fds else State.create(shape, resident=True)
    state.buffers.populate(0, state.buffers.size)
    state.outstanding.populate(0, state.outstanding.size)
    if settings.is_small:  # a page that is had on demand may not be had when memory is short
        state.populate_index()
    made = [] if fds else state.fds()
    link.send(
        "prepared", made, signs=channel.signs(state), region=state.fds().index(state.buffers.fd)
    )
    return state, rings


def _give_way(link: Link) -> None:
    """Go first no longer. Until here nobody could help it: now it can be told to hurry.

    Who tells it gives it precedence after that, so if it is told meanwhile that is not undone.
    """
    memory.give_precedence()
    if link.is_readable:
        memory.take_precedence()


def _has_time(link: Link, *, hurry: bool) -> bool:
    """Whether there is nothing better to do: nobody waits for it, and it has been told nothing."""
    return not hurry and not link.is_readable


def _warm(settings: Settings, has_time: Callable[[], bool]) -> None:
    """Serve a scratch device, step by step, until there is something better to do."""
    if has_time() and _walk(steps(policy_of(settings)), has_time):
        gc.collect()  # the scratch device's memory before all
        gc.freeze()


def _walk(steps: Iterator[Callable[[], object]], go_on: Callable[[], bool]) -> bool:
    """Whether all of it was done. Nothing of it is referred to any more."""
    for step in steps:
        if not go_on():
            return False
        step()
    return True


def _wait(link: Link) -> tuple[Message, list[int]] | None:
    """The message to serve; None if the supervisor has ended."""
    while (received := link.receive()) is not None and received[0]["is"] == "hurry":
        memory.take_precedence()
    return received


def _make_up(left: Sequence[Run]) -> None:
    """Have the pages as our own that there was no time for."""
    if left:
        spare = memory.has_spare(_SPARE)
        own = partial(make_own_in_time, left, spare)
        threading.Thread(target=own, name="vswap-own", daemon=True).start()


def _charge(message: Message, fds: list[int]) -> Charge:
    agreed = None
    if message["init"]:
        agreed = Handshake(
            bytes.fromhex(message["init"]), decode_init_reply(bytes.fromhex(message["reply"]))
        )
    backing = (fds[1], str(message["backing"])) if len(fds) > 1 else None
    return Charge(
        fds[0], agreed, backing, message["restarts"], message["supervisor"], message["ended"]
    )

"""Workers that die at a named point, and the device that must survive it.

A point is Python for a worker's prelude that patches one function. Nothing happens there until a
test arms it: that makes a token, a file, for each death. Whoever comes to the point unlinks one and
is killed by SIGKILL on the spot; whoever finds none goes on. So each token kills one worker, and
only a worker: a standby that warms up passes all points as well.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from mount.harness import (
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    PAGE,
    SOURCES,
    Worker,
    aligned,
    environment,
    errno_of,
    eventually,
    fallocate,
)

CLUSTER = 512
"""Pages."""

MOST = 1 << 20
"""Bytes of one request."""

SECONDS = 20.0
"""How long anything may take that goes on after a death."""

_VARIABLE = "VSWAP_TEST_KILLED_AT"

_PRELUDE = f"""
import functools, importlib, inspect, os, signal, threading, time
from pathlib import Path

tokens, reached, go = (Path(os.environ[{_VARIABLE!r}], name) for name in ("tokens", "at", "go"))
counting, dying = threading.Lock(), threading.Lock()

def die(name, gated):
    if not dying.acquire(blocking=False):
        return
    for token in tokens.glob(name + ".*"):
        try:
            token.unlink()
        except FileNotFoundError:
            continue
        if gated:
            reached.touch()
            while not go.exists():
                time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)
    dying.release()

def point(name, place, when, skip, only, gated, part):
    module, _, path = place.partition(":")
    owner = importlib.import_module(module)
    *outer, attribute = path.split(".")
    for one in outer:
        owner = getattr(owner, one)
    work = getattr(owner, attribute)
    is_static = isinstance(inspect.getattr_static(owner, attribute), staticmethod)
    seen = 0

    def here(args):
        nonlocal seen
        if not any(tokens.glob(name + ".*")) or not only(*args):
            return False
        if Path("/proc/self/comm").read_text() != "vswap-worker\\n":
            return False
        with counting:
            seen += 1
            return seen > skip

    @functools.wraps(work)
    def patched(*args, **keywords):
        if when == "before" and here(args):
            die(name, gated)
        if when == "within" and here(args):
            work(*part(*args), **keywords)
            die(name, gated)
        result = work(*args, **keywords)
        if when == "after" and here(args):
            die(name, gated)
        return result

    setattr(owner, attribute, staticmethod(patched) if is_static else patched)
"""

QUICKLY = """
import vswapd.forking, vswapd.standby
vswapd.forking.warm_up = vswapd.forking.warm_up_backing = lambda policy: None
vswapd.standby.steps = lambda policy: ()
"""
"""Prelude: start without warming up, which is for others to try."""

WITHOUT_RESEND = """
import vswap.proto.handshake
from vswap.proto.abi import InitFlag
vswap.proto.handshake._WANTED &= ~InitFlag.HAS_RESEND
"""
"""Prelude: as on a kernel that cannot send again what was not answered."""


@dataclass(frozen=True)
class Point:
    """Before or after a function's work, or `within` it: when it has done a part of it.

    `place` is module:function or module:class.method. `skip` passes live. `only` and `part` are
    the bodies of functions of the arguments `a`: whether to count this pass, and the arguments
    with which the part is done. Whoever dies at a `gated` point waits for `Trap.open` first.
    """

    when: str
    place: str
    skip: int = 0
    only: str = "True"
    gated: bool = False
    part: str = "a"

    def source(self, name: str) -> str:
        """The patch."""
        how = f"{name!r}, {self.place!r}, {self.when!r}, {self.skip}"
        return f"point({how}, lambda *a: {self.only}, {self.gated}, lambda *a: {self.part})\n"


@dataclass
class Trap:
    """The tokens, in a directory of its own."""

    directory: Path
    deaths: int = 0

    def __post_init__(self) -> None:
        self._tokens = self.directory / "tokens"
        self._tokens.mkdir(parents=True)

    def environment(self) -> dict[str, str]:
        """What the prelude finds the tokens by."""
        return {**environment(), _VARIABLE: str(self.directory)}

    @staticmethod
    def prelude(points: dict[str, Point]) -> str:
        """What makes workers die at these points, each armed by its name."""
        return _PRELUDE + "".join(one.source(name) for name, one in points.items())

    def arm(self, name: str = "here", deaths: int = 1) -> None:
        """So many who come to the point will die."""
        for number in range(deaths):
            (self._tokens / f"{name}.{number}").touch()
        self.deaths += deaths

    @property
    def sprung(self) -> bool:
        """Whether as many have died as were to."""
        return not any(self._tokens.iterdir())

    @property
    def reached(self) -> bool:
        """Whether somebody waits at a gated point."""
        return (self.directory / "at").exists()

    def open(self) -> None:
        """Let it die."""
        (self.directory / "go").touch()


# --- Content -----------------------------------------------------------------------------


@lru_cache(1)
def _text() -> bytes:
    package = Path(SOURCES[0]) / "vswap"
    return b"".join(path.read_bytes() for path in sorted(package.rglob("*.py")))


def noise(pages: int, salt: int = 0) -> bytes:
    """Pages that do not compress."""
    return random.Random(salt).randbytes(pages * PAGE)


def text(pages: int, salt: int = 0) -> bytes:
    """Pages that do, each another one."""
    source = _text()
    made = bytearray()
    for page in range(pages):
        at = (page * 1531 + salt * 7919) % (len(source) - PAGE)
        made += b"%015d " % (salt << 32 | page) + source[at : at + PAGE - 16]
    return bytes(made)


def mixed(pages: int, salt: int = 0) -> bytes:
    """Units that compress and others that do not; pages of zeros, and of one word."""
    made = bytearray(text(pages, salt))
    plain = noise(pages, salt)
    for page in range(pages):
        here = slice(page * PAGE, (page + 1) * PAGE)
        if page // 4 % 2:
            made[here] = plain[here]
        if page % 16 == 10:
            made[here] = bytes(PAGE)
        if page % 16 == 13:
            made[here] = b"%08d" % (page % 5) * (PAGE // 8)
    return bytes(made)


# --- The device --------------------------------------------------------------------------


@dataclass
class Scene:
    """A device, what is on it, and others who use it meanwhile."""

    device: Worker
    trap: Trap
    pool: ThreadPoolExecutor
    swap: int = field(init=False)
    expected: bytearray = field(default_factory=bytearray)
    others: list[Future[Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.swap = os.open(self.device.swap, os.O_RDWR)

    def meanwhile(self, call: Callable[[], Any]) -> Future[Any]:
        """Have a request made by another thread. It must come to a good end."""
        self.others.append(self.pool.submit(call))
        return self.others[-1]

    def write(self, page: int, data: bytes, start: int = 0) -> None:
        """Write from a byte of a page on; one request, if it is no more than `MOST` bytes."""
        at = page * PAGE + start
        self.expect(page, data, start)
        for done in range(0, len(data), MOST):
            piece = data[done : done + MOST]
            assert os.pwrite(self.swap, aligned(piece), at + done) == len(piece)

    def expect(self, page: int, data: bytes, start: int = 0) -> None:
        """This is there, or will be."""
        at = page * PAGE + start
        self.expected += bytes(max(0, at + len(data) - len(self.expected)))
        self.expected[at : at + len(data)] = data

    def discard(self, page: int, pages: int) -> None:
        """One request."""
        self.expect(page, bytes(pages * PAGE))
        mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
        fallocate(self.swap, mode, page * PAGE, pages * PAGE)

    def read(self, page: int, pages: int) -> None:
        """One request, whose answer must be right."""
        found = os.pread(self.swap, pages * PAGE, page * PAGE)
        wanted = self.expected[page * PAGE : (page + pages) * PAGE]
        pieces = (slice(at, at + PAGE) for at in range(0, pages * PAGE, PAGE))
        wrong = [at for at, here in enumerate(pieces, page) if found[here] != wanted[here]]
        assert not wrong, f"pages {wrong} are not what was written"

    def read_all(self) -> None:
        """Every page."""
        for page in range(0, len(self.expected) // PAGE, MOST // PAGE):
            self.read(page, min(MOST // PAGE, len(self.expected) // PAGE - page))

    def give(self, command: str) -> tuple[int, str]:
        """The errno of a command, 0 if it is done, and what `ctl` says then."""
        fd = os.open(self.device.mount / "ctl", os.O_RDWR)
        try:
            code = errno_of(lambda: os.write(fd, command.encode() + b"\n"))
            return code, os.pread(fd, 1 << 20, 0).decode()
        finally:
            os.close(fd)

    def done(self, command: str) -> str:
        """What a command says that must succeed."""
        code, said = self.give(command)
        assert code == 0, said
        return said

    def stats(self) -> dict[str, Any]:
        """`stats.json`, as it is now."""
        values = json.loads((self.device.mount / "stats.json").read_bytes())
        assert isinstance(values, dict)
        return values

    def settle(self) -> None:
        """Wait until all who were to die have, and all who asked for something have it."""
        assert eventually(lambda: self.trap.sprung, SECONDS), "nobody came to the point"
        for other in self.others:
            other.result(SECONDS)
        self.others.clear()

    def survives(self, settled: Iterable[str] = ()) -> dict[str, Any]:
        """Everything is as it should be, and it ends cleanly. Statistics, from before that.

        `settled` are counters of failures that were meant to happen.
        """
        self.settle()
        self.read_all()
        said = self.done("check")
        assert said.startswith("ok: "), said
        stats = self.stats()
        assert stats["worker_restarts"] == self.trap.deaths
        failures = {"failed_reads", "failed_writes", "internal_errors", "protocol_errors"}
        assert {name: stats[name] for name in failures.difference(settled) if stats[name]} == {}
        os.close(self.swap)
        self.device.signal()
        assert self.device.wait() == 0
        assert not self.device.mounted()
        return stats

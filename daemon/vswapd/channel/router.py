"""Routing: which requests the data plane answers, and how.

READ, WRITE, FALLOCATE, LSEEK and OPEN of the file `swap` are answered here, from the store.
(OPEN, because pyfuse3 has no name for FOPEN_PARALLEL_DIRECT_WRITES, without which the kernel
sends the writes of one file one after the other.) Everything else goes to the control
plane as it came.

A request that changes something leaves a mark when it is done, before it is answered: a worker that
is killed in between is followed by one that answers, and does not do it again. By then the kernel
may have sent newer requests for the same slots, which were served.

Nothing that a request holds can end the thread: what cannot be decoded is answered with
EINVAL, and an error nobody foresaw with EIO.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns

from vswap.errors import ProtocolError, RangeError, RequestError, UnsupportedError
from vswap.proto import (
    Fallocate,
    Lseek,
    Open,
    Read,
    Request,
    Write,
    abi,
    decode,
    expects_reply,
    replies,
)
from vswap.store import Lane, Parked
from vswapd.channel.done import Done
from vswapd.channel.latency import Latencies, Latency
from vswapd.channel.outstanding import Outstanding
from vswapd.channel.replier import Replier

__all__ = ["SWAP_INODE", "Answer", "Forward", "Router", "RouterStatistics"]

SWAP_INODE = 2

Forward = Callable[[memoryview], bool]
"""Hands a request to the control plane without waiting; False if it cannot take it now."""

Answer = Callable[[int, Parked, int], None]
"""Hands the read called so, received then, over to whoever waits for the disk and replies."""

_OPEN_FLAGS = int(
    abi.OpenFlag.DIRECT_IO
    | abi.OpenFlag.PARALLEL_DIRECT_WRITES
    | abi.OpenFlag.NOFLUSH  # closing need not wait for the control plane
)
_READ_SIZE = abi.IN_HEADER.size + abi.READ_IN.size
_A_WHILE = 64 << 10
_LONG = 512 << 10
_ZEROING = abi.FALLOC_FL_PUNCH_HOLE | abi.FALLOC_FL_ZERO_RANGE
_MODES = _ZEROING | abi.FALLOC_FL_KEEP_SIZE

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RouterStatistics:
    """Requests that took another way than the usual one; `parked` are reads of what is on disk."""

    parked: int
    forwarded: int
    refused: int
    late_replies: int
    protocol_errors: int
    internal_errors: int


class Router:
    """Answers the requests that come in one receive buffer, for one thread."""

    def __init__(
        self,
        fd: int,
        buffer: memoryview,
        lane: Lane,
        done: Done,
        outstanding: Outstanding,
        forward: Forward,
        answer: Answer,
    ) -> None:
        """`buffer` is where requests lie; it, `lane` and `done` must be this thread's own."""
        self._replier = Replier(fd)
        self._reply = self._replier.send
        self._buffer = buffer
        self._payload = buffer[abi.WRITE_PAYLOAD :]
        self._lane = lane
        self._done = done
        self._outstanding = outstanding
        self._forward = forward
        self._answer = answer
        self._handlers: dict[type, Callable[..., None]] = {
            Read: self._read,
            Write: self._write,
            Fallocate: self._fallocate,
            Lseek: self._lseek,
            Open: self._open,
        }
        self._latency = {Read: Latency(), Write: Latency(), Fallocate: Latency()}
        self._note_read = self._latency[Read].note
        self._note_write = self._latency[Write].note
        self._note_discard = self._latency[Fallocate].note
        self._received_ns = 0
        self._parked = self._forwarded = self._refused = 0
        self._protocol_errors = self._internal_errors = 0

    def decode(self, length: int) -> Request | None:
        """The request in the buffer; None if there is none, which has then been dealt with.

        To be called as soon as it is received: it is the time of that.
        """
        self._received_ns = perf_counter_ns()
        try:
            return decode(self._buffer, length)
        except ProtocolError as error:
            self._protocol_errors += 1
            _log.error("not a request: %s", error)
            if error.unique:
                self._reply(replies.error(error.unique, errno.EINVAL))
            return None

    @staticmethod
    def wants_company(request: Request, pending: Callable[[], bool]) -> bool:
        """Whether another thread should receive while this request is served.

        Yes for what takes long in any case; for what takes a while only if something is
        `pending` already, because two threads that serve at once cost more in all than one
        that serves two requests in turn.
        """
        kind = type(request)
        if kind is Read or kind is Write:
            size: int = request.size  # type: ignore[union-attr]
            return size >= _A_WHILE and (size >= _LONG or pending())
        return kind is Fallocate or kind is Lseek

    def serve(self, request: Request, length: int) -> None:
        """Answer the request in the buffer, or see that it will be answered."""
        handler = self._handlers.get(type(request))
        if handler is None or request.nodeid != SWAP_INODE:  # type: ignore[union-attr]
            self._pass_on(request, length)
            return
        try:
            handler(request)
        except RequestError as error:
            self._refuse(request, error.errno)
        except Exception:
            self._internal_errors += 1
            _log.exception("%s failed", type(request).__name__)
            self._refuse(request, errno.EIO)

    def _refuse(self, request: Request, code: int) -> None:
        self._done.failed(request.unique, code)  # what failed is not done later, either
        self._reply(replies.error(request.unique, code))
        if latency := self._latency.get(type(request)):
            latency.note(self._received_ns)

    def redo(self, *, resend: bool = False) -> None:
        """Answer what a predecessor has left in the buffer.

        If the kernel will `resend` what is not answered, that is enough for what is passed on.
        """
        length = int.from_bytes(self._buffer[:4], "little")
        request = self.decode(length) if length else None
        if request is None or request.unique in self._outstanding:
            return
        if resend and self._is_resent(request):
            return
        code = self._done.outcome_of(request.unique)
        if code is None:
            self.serve(request, length)
        elif code:
            self._reply(replies.error(request.unique, code))
        elif isinstance(request, Write):
            self._reply(replies.written(request.unique, request.size))
        else:
            self._reply(replies.ok(request.unique))

    def _is_resent(self, request: Request) -> bool:
        ours = type(request) in self._handlers and request.nodeid == SWAP_INODE  # type: ignore[union-attr]
        return not ours and expects_reply(getattr(request, "opcode", 0))

    def serve_again(self, kept: bytes) -> None:
        """Answer what a predecessor had passed on: a read of what is on disk, or any other.

        A command is not given again: nobody knows how far it has come.
        """
        self._received_ns = perf_counter_ns()  # when the predecessor received it nobody knows
        unique = abi.IN_HEADER.unpack_from(kept)[2]
        try:
            request = decode(kept, len(kept))
        except ProtocolError:  # it was not kept whole
            request = None
        if type(request) is Read and request.nodeid == SWAP_INODE:
            if not self._read_again(request):
                return
        elif request is None or type(request) is Write:
            self._reply(replies.error(unique, errno.ECANCELED))
        elif self._forward(memoryview(kept)):
            return
        else:
            self._reply(replies.error(unique, errno.EBUSY))
        self._outstanding.answered(unique)

    def _read_again(self, request: Read) -> bool:
        """Whether it is answered; if not it has been handed over, and is kept as it is."""
        try:
            buffers = self._lane.look(request.offset, request.size)
            if isinstance(buffers, Parked):
                self._parked += 1
                self._answer(request.unique, buffers, self._received_ns)
                return False
        except RequestError as error:
            self._reply(replies.error(request.unique, error.errno))
        except Exception:
            self._internal_errors += 1
            _log.exception("a read that was kept has failed")
            self._reply(replies.error(request.unique, errno.EIO))
        else:
            self._reply(replies.data_header(request.unique, sum(map(len, buffers))), *buffers)
        self._note_read(self._received_ns)
        return True

    def ask_again(self) -> None:
        """Have the kernel send again what was received and not answered, by whomever."""
        self._reply(replies.resend())

    def prepare(self) -> bool:
        """Do a little for requests that may come; False if there is nothing (more) to do."""
        try:
            return self._lane.read_ahead()
        except Exception:
            self._internal_errors += 1
            _log.exception("what comes next could not be prepared")
            return False

    def _read(self, request: Read) -> None:
        buffers = self._lane.look(request.offset, request.size)
        if isinstance(buffers, Parked):
            if self._outstanding.keep(request.unique, self._buffer[:_READ_SIZE]):
                self._parked += 1
                self._answer(request.unique, buffers, self._received_ns)
                return
            buffers = self._lane.read(request.offset, request.size)  # waits for the disk itself
        size = len(buffers[0]) if len(buffers) == 1 else sum(map(len, buffers))
        self._reply(replies.data_header(request.unique, size), *buffers)
        self._note_read(self._received_ns)

    def _write(self, request: Write) -> None:
        self._lane.write(request.offset, self._payload[: request.size])
        self._done.succeeded(request.unique)
        self._reply(replies.written(request.unique, request.size))
        self._note_write(self._received_ns)

    def _fallocate(self, request: Fallocate) -> None:
        if request.mode & ~_MODES:
            raise UnsupportedError(f"fallocate mode {request.mode:#x}")
        if request.mode & _ZEROING:
            self._lane.discard(request.offset, request.length)
        elif request.offset + request.length > self._lane.size:
            raise RangeError("the device does not grow")
        self._done.succeeded(request.unique)
        self._reply(replies.ok(request.unique))
        self._note_discard(self._received_ns)

    def _lseek(self, request: Lseek) -> None:
        offset = self._lane.seek(request.offset, request.whence)
        self._reply(replies.found(request.unique, offset))

    def _open(self, request: Open) -> None:
        self._reply(replies.opened(request.unique, 0, _OPEN_FLAGS))

    def _pass_on(self, request: Request, length: int) -> None:
        opcode = getattr(request, "opcode", 0)
        if opcode == abi.Opcode.INTERRUPT:
            # Nothing is given up half done; the kernel will not ask again.
            self._reply(replies.error(request.unique, errno.ENOSYS))
            return
        if type(request) is Write and request.unique & abi.RESEND_BIT:
            # A command, which a predecessor was doing when it ended.
            self._reply(replies.error(request.unique, errno.ECANCELED))
            return
        self._forwarded += 1
        message = self._buffer[:length]
        if not expects_reply(opcode):
            self._refused += not self._forward(message)
            return
        unique = request.unique
        if self._outstanding.keep(unique, message):
            # Once it is answered, and not kept any more, it must not be given again from here.
            self._done.failed(unique, errno.ECANCELED)
            if self._forward(message):
                return
            self._outstanding.answered(unique)
        self._refused += 1
        self._reply(replies.error(unique, errno.EBUSY))

    def latencies(self) -> Latencies:
        """Of the requests that were answered here."""
        return Latencies(*(latency.histogram() for latency in self._latency.values()))

    def statistics(self) -> RouterStatistics:
        """Counts since the start."""
        return RouterStatistics(
            self._parked,
            self._forwarded,
            self._refused,
            self._replier.late,
            self._protocol_errors,
            self._internal_errors + self._replier.failed,
        )

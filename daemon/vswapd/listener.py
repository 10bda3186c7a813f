"""Where the metrics can be had over HTTP: the listener of `vswap metrics --listen`.

A process of its own: the daemons open no port. It is no part of what serves a device, and what
it reads from the mounts it has read by children with a time limit (vswapd/scraper.py).

Clients are trusted with nothing. There may be a few connections at a time, and more are closed at
once; each is one request (HTTP/1.0) and is ended when its time is up, however slowly it sends or
takes its bytes. However often it is asked, the devices are asked once a second at most.
"""

from __future__ import annotations

import errno
import os
import socket
import socketserver
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TypeAlias

from vswap.errors import UserError, VswapError
from vswapd.address import Address
from vswapd.exposition import CONTENT_TYPE

__all__ = ["Listener", "NotYetError", "cached", "listening"]

_Request: TypeAlias = "socket.socket | tuple[bytes, socket.socket]"

_CONNECTIONS = 16
_PAUSE_SECONDS = 5.0  # between two pieces of a request
_CONNECTION_SECONDS = 20.0
_FRESH_SECONDS = 1.0
_PASSING = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)


class NotYetError(VswapError):
    """The address is taken, or not there: nobody's mistake, and later it may be had."""


class Listener(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Answers GET /metrics with what `content` says then."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = _CONNECTIONS

    def __init__(self, address: Address, content: Callable[[], str]) -> None:
        """Listens from now on. Raises `OSError`. `content` is called in any thread."""
        self.content = content
        self.address_family = address.family
        self._room = threading.Semaphore(_CONNECTIONS)
        super().__init__(address.path or (address.host, address.port), _Handler)  # type: ignore[arg-type]
        port = 0 if address.path else self.socket.getsockname()[1]
        self.place = f"http://{replace(address, port=port)}/metrics" if port else str(address)
        """Where it is to be had."""

    def process_request(self, request: _Request, client_address: object) -> None:
        """In a thread, if there is room for one more."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._room.release()
            raise

    def process_request_thread(self, request: _Request, client_address: object) -> None:
        """Until it is answered, or its time is up."""
        ending = threading.Timer(_CONNECTION_SECONDS, _end, [request])
        ending.daemon = True
        ending.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            ending.cancel()
            self._room.release()

    def handle_error(self, request: _Request, client_address: object) -> None:
        """A client that goes away is no news; a fault of ours is one line."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            sys.stderr.write(f"vswap: a request for metrics failed: {error!r}\n")


def _end(request: _Request) -> None:
    assert isinstance(request, socket.socket)
    with suppress(OSError):  # it has ended
        request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """One connection, one request."""

    server: Listener
    timeout = _PAUSE_SECONDS
    server_version = "vswap"
    sys_version = ""
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = "text/plain; charset=utf-8"

    def do_GET(self) -> None:  # http.server has it so
        """The metrics, or 404."""
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        body = self.server.content().encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self) -> None:
        self.send_response(HTTPStatus.METHOD_NOT_ALLOWED)
        self.send_header("Allow", "GET, HEAD")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815
    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _refuse  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        """Who asks is nobody's business, and what hostile clients send must not fill a log."""


def cached(content: Callable[[], str]) -> Callable[[], str]:
    """`content`, called once a second at most, by one thread at a time; others get the same."""
    lock = threading.Lock()
    made, text = -_FRESH_SECONDS, ""

    def fresh() -> str:
        nonlocal made, text
        with lock:
            if time.monotonic() - made >= _FRESH_SECONDS:
                text = content()
                made = time.monotonic()
            return text

    return fresh


@contextmanager
def listening(address: Address, content: Callable[[], str]) -> Iterator[Listener]:
    """A listener; its socket in the file system is removed in the end.

    Raises `NotYetError`, and `UserError` for an address that will not do.
    """
    if address.path:
        _clear(Path(address.path))
    try:
        before = os.umask(0o117)  # a socket is for root, and for who is in its group
        try:
            listener = Listener(address, content)
        finally:
            os.umask(before)
    except OSError as error:
        kind = NotYetError if error.errno in _PASSING else UserError
        raise kind(_why_not(address, error)) from None
    mine = _identity(address.path)
    try:
        yield listener
    finally:
        listener.server_close()
        if mine is not None and mine == _identity(address.path):
            Path(address.path).unlink()


def _clear(path: Path) -> None:
    """Remove the socket of a listener that was killed.

    Raises `NotYetError` if it is in use, `UserError` if it is something else.
    """
    try:
        mode = path.lstat().st_mode
    except OSError:
        return  # what there is to say of the path, binding to it will
    if not stat.S_ISSOCK(mode):
        raise UserError(f"{path} exists and is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError:
            pass
    raise NotYetError(f"{path} is in use: something listens there")


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).lstat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISSOCK(found.st_mode) else None


def _why_not(address: Address, error: OSError) -> str:
    reasons = {
        errno.EADDRINUSE: "something listens there already",
        errno.EADDRNOTAVAIL: "this machine has no such address",
        errno.EACCES: "this user may not listen there",
        errno.ENOENT: "there is no such directory",
    }
    why = reasons.get(error.errno or 0) or error.strerror or str(error)
    return f"cannot listen at {address}: {why}"

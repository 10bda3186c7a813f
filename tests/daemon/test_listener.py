"""The listener, as its clients see it: those who mean well and the others."""

from __future__ import annotations

import http.client
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from vswap.errors import UserError
from vswapd import listener as module
from vswapd.address import Address
from vswapd.listener import Listener, NotYetError, cached, listening

SECONDS = 10
LOCAL = Address("127.0.0.1", 0)
TEXT = "vswap_up 1\n"


@contextmanager
def serving(address: Address, content: Callable[[], str]) -> Iterator[Listener]:
    """It serves in a thread until the end of the block."""
    with listening(address, content) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join(SECONDS)
            assert not thread.is_alive()


@pytest.fixture
def server() -> Iterator[Listener]:
    with serving(LOCAL, lambda: TEXT) as made:
        yield made


def connect(server: Listener) -> socket.socket:
    return socket.create_connection(server.socket.getsockname(), SECONDS)


def everything(client: socket.socket) -> bytes:
    """What comes until the other side closes."""
    found = b""
    while part := client.recv(1 << 16):
        found += part
    return found


def ask(server: Listener, request: bytes) -> bytes:
    with connect(server) as client:
        client.sendall(request)
        return everything(client)


def fetch(server: Listener, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
    host, port = server.socket.getsockname()[:2]
    connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
    try:
        connection.request(method, path)
        reply = connection.getresponse()
        return reply.status, dict(reply.headers), reply.read()
    finally:
        connection.close()


@pytest.mark.parametrize("path", ["/metrics", "/metrics?collect=all"])
def test_get_has_the_metrics(path: str, server: Listener) -> None:
    status, headers, body = fetch(server, "GET", path)
    assert (status, body) == (200, TEXT.encode())
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert headers["Content-Length"] == str(len(body))


def test_head_has_all_but_the_metrics(server: Listener) -> None:
    got, head = fetch(server, "GET", "/metrics"), fetch(server, "HEAD", "/metrics")
    for headers in (got[1], head[1]):
        del headers["Date"]
    assert head == (200, got[1], b"")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/metric", "/../metrics", "/x/metrics"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_there_is_nothing_else(method: str, path: str, server: Listener) -> None:
    assert fetch(server, method, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_can_be_changed(method: str, server: Listener) -> None:
    status, headers, body = fetch(server, method, "/metrics")
    assert (status, headers["Allow"], body) == (405, "GET, HEAD", b"")


def test_it_says_nothing_of_what_it_runs_on(server: Listener) -> None:
    assert fetch(server, "GET", "/metrics")[1]["Server"].strip() == "vswap"


@pytest.mark.parametrize(
    ("request_", "begins"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
        (b"GET " + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", b"HTTP/1.0 414"),
        (b"GET /metrics HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", b"HTTP/1.0 431"),
        (b"GET /metrics HTTP/1.1\r\na: " + b"b" * 70_000 + b"\r\n\r\n", b"HTTP/1.0 431"),
        (b"GET /metrics HTTP/9.9\r\n\r\n", b"505"),
        (b"BREW /metrics HTTP/1.1\r\n\r\n", b"HTTP/1.0 501"),
    ],
)
def test_what_is_no_request_is_refused(
    request_: bytes, begins: bytes, server: Listener, capfd: pytest.CaptureFixture[str]
) -> None:
    """And told to nobody; the next one is served."""
    with connect(server) as client:
        client.sendall(request_)
        client.shutdown(socket.SHUT_WR)
        try:
            answer = everything(client)
        except ConnectionResetError:  # it has not read all of it
            answer = begins
    assert begins in answer
    assert fetch(server, "GET", "/metrics")[0] == 200
    assert capfd.readouterr().err == ""


def test_who_sends_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch, server: Listener) -> None:
    monkeypatch.setattr(module._Handler, "timeout", 0.05)
    assert ask(server, b"") == b""
    assert ask(server, b"GET /met") == b""


def test_who_sends_slowly_is_sent_away_when_his_time_is_up(
    monkeypatch: pytest.MonkeyPatch, server: Listener
) -> None:
    """However lively he is: a header comes and comes, and no pause is too long."""
    monkeypatch.setattr(module, "_CONNECTION_SECONDS", 0.3)
    with connect(server) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\na: ")
        client.settimeout(0.02)
        for _ in range(int(SECONDS / 0.02)):
            try:
                client.send(b"b")
                assert client.recv(1) == b""
                return
            except TimeoutError:
                continue
            except OSError:
                return
    pytest.fail("nobody minded")


def test_who_does_not_read_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module._Handler, "timeout", 0.05)
    monkeypatch.setattr(module, "_CONNECTIONS", 1)
    asked, size = threading.Event(), 64 << 20

    def content() -> str:
        asked.set()
        return "x" * size

    with serving(LOCAL, content) as server, connect(server) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert asked.wait(SECONDS)
        assert server._room.acquire(timeout=SECONDS)
        assert len(everything(client)) < size  # what was on its way


def test_more_than_a_few_at_a_time_are_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CONNECTIONS", 2)
    asked, go = threading.Semaphore(0), threading.Event()

    def content() -> str:
        asked.release()
        assert go.wait(SECONDS)
        return TEXT

    with serving(LOCAL, content) as server, ExitStack() as stack:
        waiting = [stack.enter_context(connect(server)) for _ in range(2)]
        for client in waiting:
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert asked.acquire(timeout=SECONDS)
        with connect(server) as third:
            assert everything(third) == b""
        go.set()
        for client in waiting:
            assert everything(client).endswith(TEXT.encode())
        for _ in range(2):  # their room is given back
            assert server._room.acquire(timeout=SECONDS)


def test_who_goes_away_is_no_news(server: Listener, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(5):
        with connect(server) as client:
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    assert fetch(server, "GET", "/metrics")[0] == 200
    assert capfd.readouterr().err == ""


def test_a_fault_of_ours_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    def content() -> str:
        raise ZeroDivisionError("scripted")

    with serving(LOCAL, content) as server:
        assert ask(server, b"GET /metrics HTTP/1.0\r\n\r\n") == b""
    assert capfd.readouterr().err == (
        "vswap: a request for metrics failed: ZeroDivisionError('scripted')\n"
    )


# --- Where it listens ------------------------------------------------------------------


def test_it_says_where_it_is(server: Listener) -> None:
    port = server.socket.getsockname()[1]
    assert server.place == f"http://127.0.0.1:{port}/metrics"


def test_a_port_in_use_is_one_line(server: Listener) -> None:
    port = server.socket.getsockname()[1]
    with (
        pytest.raises(NotYetError, match="something listens there already"),
        listening(Address("127.0.0.1", port), lambda: ""),
    ):
        pass


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (Address(path="/proc/nowhere/x"), "there is no such directory"),
        (Address(path="/tmp/" + "x" * 200), "path too long"),
        (Address(path="/proc/self/stat"), "exists and is no socket"),
    ],
)
def test_what_cannot_be_is_one_line(address: Address, why: str) -> None:
    with pytest.raises(UserError, match=why), listening(address, lambda: ""):
        pass


def test_an_address_may_come() -> None:
    """The network's, at boot."""
    address = Address("192.0.2.1", 9100)
    reason = "this machine has no such address"
    with pytest.raises(NotYetError, match=reason), listening(address, str):
        pass


def test_a_socket_in_the_file_system(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    with serving(Address(path=str(path)), lambda: TEXT) as server:
        assert server.place == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(SECONDS)
            client.connect(str(path))
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert everything(client).endswith(TEXT.encode())
    assert not path.exists()


def test_a_socket_that_was_left_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with listening(Address(path=str(path)), lambda: TEXT):
        assert path.is_socket()


def test_a_socket_in_use_is_left_alone(tmp_path: Path) -> None:
    address = Address(path=str(tmp_path / "metrics.sock"))
    with serving(address, lambda: TEXT):
        with pytest.raises(NotYetError, match="something listens there"), listening(address, str):
            pass
        assert Path(address.path).is_socket()


def test_what_others_have_put_there_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    with listening(Address(path=str(path)), lambda: TEXT):
        path.unlink()
        path.write_text("mine")
    assert path.read_text() == "mine"


# --- What is asked of the devices ------------------------------------------------------


def test_devices_are_asked_once_a_second_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    asked: list[float] = []

    def content() -> str:
        asked.append(now[0])
        return str(len(asked))

    fresh = cached(content)
    assert [fresh(), fresh()] == ["1", "1"]
    now[0] += 0.5
    assert fresh() == "1"
    now[0] += 0.5
    assert [fresh(), fresh()] == ["2", "2"]
    assert asked == [100.0, 101.0]


def test_what_has_failed_is_tried_again() -> None:
    told = ["better", ""]

    def content() -> str:
        if not (text := told.pop()):
            raise ZeroDivisionError
        return text

    fresh = cached(content)
    with pytest.raises(ZeroDivisionError):
        fresh()
    assert fresh() == "better"

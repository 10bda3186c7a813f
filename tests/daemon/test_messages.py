"""Messages and descriptors between two processes, over real sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from vswapd.messages import Link, Message

SECONDS = 10


@pytest.fixture
def links() -> Iterator[tuple[Link, Link]]:
    """Both ends."""
    one, end = Link.pair()
    other = Link(end)
    yield one, other
    one.close()
    other.close()


def received(link: Link) -> tuple[Message, list[int]]:
    found = link.receive()
    assert found is not None
    return found


def is_open(fd: int) -> bool:
    return Path(f"/proc/self/fd/{fd}").exists()


def test_a_message_arrives_as_it_is(links: tuple[Link, Link]) -> None:
    one, other = links
    assert one.send("prepared", signs=[1, 2], path="/odd\udcff\n", nothing=None)
    message = {"is": "prepared", "signs": [1, 2], "path": "/odd\udcff\n", "nothing": None}
    assert received(other) == (message, [])


def test_messages_go_both_ways_and_stay_apart(links: tuple[Link, Link]) -> None:
    one, other = links
    one.send("first")
    one.send("second", number=2)
    other.send("third")
    assert [received(other)[0], received(other)[0]] == [
        {"is": "first"},
        {"is": "second", "number": 2},
    ]
    assert received(one)[0] == {"is": "third"}


def test_descriptors_come_in_their_order_and_are_the_same_files(links: tuple[Link, Link]) -> None:
    one, other = links
    mine = [os.memfd_create(f"test-{number}") for number in range(3)]
    one.send("prepared", mine)
    _, theirs = received(other)
    assert [os.fstat(fd).st_ino for fd in theirs] == [os.fstat(fd).st_ino for fd in mine]
    assert not set(theirs) & set(mine)
    assert all(map(is_open, mine))
    for fd in (*mine, *theirs):
        os.close(fd)


def test_descriptors_that_came_are_not_inherited(links: tuple[Link, Link]) -> None:
    one, other = links
    mine = os.memfd_create("test", 0)
    one.send("serve", [mine])
    (theirs,) = received(other)[1]
    assert os.get_inheritable(mine)
    assert not os.get_inheritable(theirs)
    os.close(mine)
    os.close(theirs)


def test_as_many_descriptors_as_a_device_has_fit(links: tuple[Link, Link]) -> None:
    one, other = links
    mine = os.memfd_create("test")
    one.send("inherit", [mine] * 32)
    theirs = received(other)[1]
    assert len(set(theirs)) == 32
    for fd in (mine, *theirs):
        os.close(fd)


def test_a_descriptor_that_is_on_its_way_stays_open(links: tuple[Link, Link]) -> None:
    """Whoever sent it may have ended before it is received."""
    one, other = links
    mine = os.memfd_create("test")
    os.write(mine, b"kept")
    one.send("hold", [mine], path="/backing")
    os.close(mine)
    one.close()
    message, (theirs,) = received(other)
    assert message == {"is": "hold", "path": "/backing"}
    assert os.pread(theirs, 10, 0) == b"kept"
    assert other.receive() is None
    os.close(theirs)


def test_a_message_has_room_for_all_that_is_told_of_a_device(links: tuple[Link, Link]) -> None:
    one, other = links
    text = "x" * (60 << 10)
    assert one.send("inherit", record=text)
    assert received(other)[0]["record"] == text


def test_the_end_of_the_other_is_the_end_of_the_messages(links: tuple[Link, Link]) -> None:
    one, other = links
    one.send("last")
    one.close()
    assert received(other)[0] == {"is": "last"}
    assert other.receive() is None
    assert other.receive() is None


def test_nobody_at_the_other_end_is_told(links: tuple[Link, Link]) -> None:
    one, other = links
    assert one.send("heard")
    other.close()
    assert not one.send("unheard")
    assert not one.send("unheard", [0])


def test_who_ends_with_messages_unread_is_no_error(links: tuple[Link, Link]) -> None:
    """The kernel resets such a connection."""
    one, other = links
    one.send("unread")
    other.close()
    assert one.receive() is None


def test_a_child_s_end_is_seen(links: tuple[Link, Link]) -> None:
    """With no end of its socket left open here, nor in the child's copy of ours."""
    one, end = Link.pair()
    pid = os.fork()
    if not pid:
        one.close()
        Link.of(end.detach()).send("hello", pid=os.getpid())
        os._exit(0)
    end.close()
    assert received(one) == ({"is": "hello", "pid": pid}, [])
    assert one.receive() is None
    os.waitpid(pid, 0)
    one.close()


def test_a_link_of_a_descriptor_is_that_end() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        fd = theirs.detach()
        link = Link.of(fd)
        assert link.fileno() == fd
        link.send("hello")
        assert ours.recv(100) == b'{"is": "hello"}'
        link.close()
        assert not is_open(fd)


def test_ends_are_not_inherited() -> None:
    one, end = Link.pair()
    assert not os.get_inheritable(one.fileno())
    assert not os.get_inheritable(end.fileno())
    one.close()
    end.close()


def test_it_may_be_closed_twice(links: tuple[Link, Link]) -> None:
    one, _ = links
    one.close()
    one.close()
    assert one.fileno() == -1


def test_a_message_and_the_end_can_be_looked_for(links: tuple[Link, Link]) -> None:
    one, other = links
    assert not other.is_readable
    one.send("hello")
    assert other.is_readable
    other.receive()
    assert not other.is_readable
    one.close()
    assert other.is_readable

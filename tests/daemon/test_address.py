"""Addresses as a person types them."""

from __future__ import annotations

import socket

import pytest

from vswap.errors import UserError
from vswapd.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "address", "public"),
    [
        ("127.0.0.1:9100", Address("127.0.0.1", 9100), False),
        ("127.8.8.8:0", Address("127.8.8.8", 0), False),
        ("localhost:80", Address("127.0.0.1", 80), False),
        ("[::1]:65535", Address("::1", 65535), False),
        ("0.0.0.0:9100", Address("0.0.0.0", 9100), True),
        ("192.0.2.7:9100", Address("192.0.2.7", 9100), True),
        ("[::]:9100", Address("::", 9100), True),
        ("unix:/run/a b.sock", Address(path="/run/a b.sock"), False),
    ],
)
def test_what_is_understood(text: str, address: Address, public: bool) -> None:
    found = parse_address(text)
    assert (found, found.is_public) == (address, public)
    assert parse_address(str(found)) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' is no address"),
        ("9100", "'9100' is no address"),
        ("::1:9100", "'::1:9100' is no address"),
        ("[::1]", "'[::1]' is no address"),
        (":9100", "'' is no IP address"),
        ("example.org:80", "'example.org' is no IP address"),
        ("127.0.0.1:", "'' is no port"),
        ("127.0.0.1:65536", "'65536' is no port"),
        ("127.0.0.1:-1", "'-1' is no port"),
        ("127.0.0.1:\u0661", "is no port"),
        ("unix:metrics.sock", "begins with /"),
        ("unix:", "begins with /"),
    ],
)
def test_what_is_not(text: str, why: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_address(text)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_families() -> None:
    texts = ("127.0.0.1:1", "[::1]:1", "unix:/x")
    families = [parse_address(text).family for text in texts]
    assert families == [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX]

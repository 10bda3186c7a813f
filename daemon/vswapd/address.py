"""Addresses to listen at, as a person types them."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass

from vswap.errors import UserError

__all__ = ["Address", "parse_address"]

_UNIX = "unix:"


@dataclass(frozen=True)
class Address:
    """Where to listen: a numeric `host` and `port`, or the `path` of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_public(self) -> bool:
        """Whether other machines may reach it."""
        return not self.path and not ipaddress.ip_address(self.host).is_loopback

    @property
    def family(self) -> socket.AddressFamily:
        """As socket(2) wants it."""
        if self.path:
            return socket.AF_UNIX
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    def __str__(self) -> str:
        """As it is typed."""
        if self.path:
            return _UNIX + self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """`127.0.0.1:18792`, `[::1]:18792`, `localhost:18792` or `unix:/path`. Raises `UserError`."""
    if text.startswith(_UNIX):
        path = text.removeprefix(_UNIX)
        if not path.startswith("/"):
            raise UserError(f"{text}: the path of a socket begins with /")
        return Address(path=path)
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or (":" in bare and bare == host):
        raise UserError(f"{text!r} is no address; say 127.0.0.1:18792, [::1]:18792 or unix:/PATH")
    if not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise UserError(f"{port!r} is no port; they go up to 65535")
    try:
        host = str(ipaddress.ip_address("127.0.0.1" if bare == "localhost" else bare))
    except ValueError:
        raise UserError(f"{bare!r} is no IP address, such as 127.0.0.1 or [::1]") from None
    return Address(host, int(port))

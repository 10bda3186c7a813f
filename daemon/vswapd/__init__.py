"""vswap's daemon and its commands: everything that touches the machine."""

from __future__ import annotations

"""vswap's engine: the FUSE wire codec and the compressed store, free of I/O frameworks."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"

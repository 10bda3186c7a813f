"""Logging that nobody waits for.

The daemon's stderr may be a pipe that is full, or a file on a disk that is slow because
memory is short. So records are handed to a thread of their own, and dropped if it does not
keep up. Nothing that is logged may hold the contents of a page.
"""

from __future__ import annotations

import logging
import logging.handlers
import queue
import signal
import sys
import threading

__all__ = ["start_log", "stop_log"]

_KEPT = 1000
_FLUSH_SECONDS = 1.0

_records: queue.Queue[logging.LogRecord | None] = queue.Queue(_KEPT)
_thread: threading.Thread | None = None


class _Handler(logging.handlers.QueueHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """The queue is full: the record is dropped."""


def start_log() -> None:
    """Send what is logged to stderr from now on."""
    global _thread  # noqa: PLW0603
    formatter = logging.Formatter("vswap: %(message)s")
    handler = _Handler(_records)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    _thread = threading.Thread(target=_write, name="vswap-log", daemon=True)
    _thread.start()


def stop_log() -> None:
    """Write what is left, as far as that is possible in a second."""
    global _thread  # noqa: PLW0603
    if _thread is not None and not _records.full():
        _records.put_nowait(None)
        _thread.join(_FLUSH_SECONDS)
    _thread = None


def _write() -> None:
    # Signals are for the main thread, which may be holding them back.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while (record := _records.get()) is not None:
        try:
            # By the handler's formatter already, a traceback included.
            sys.stderr.write(record.getMessage() + "\n")
            sys.stderr.flush()
        except OSError:  # nobody reads any more
            continue

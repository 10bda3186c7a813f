"""What holds for all tests."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Heed what nohup, or a shell for what runs beside it, has made us ignore.

    So do the programs that tests start. An interruption ends the tests, as ever.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: None)

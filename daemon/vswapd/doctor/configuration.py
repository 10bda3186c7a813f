"""The configuration: whether a device could be brought up as it says."""

from __future__ import annotations

import os
from collections.abc import Iterator

from vswapd.conffile import ConfigError, Configuration
from vswapd.doctor.finding import Finding, failure, good, warning

__all__ = ["right", "wrong"]


def right(configuration: Configuration) -> Iterator[Finding]:
    """On one without mistakes."""
    if not configuration.files:
        yield good(f"there is no configuration ({configuration.source}), nor need there be one")
        return
    count = len(configuration.devices)
    files = ", ".join(configuration.files)
    yield good(f"the configuration is right: {count} device{'' if count == 1 else 's'} in {files}")


def wrong(error: ConfigError) -> Iterator[Finding]:
    """On one with mistakes, or with files that only root can read."""
    first, *others = error.lines
    whole = [problem.file for problem in error.problems if not problem.place]
    if os.geteuid() != 0 and not all(os.access(file, os.R_OK) for file in whole):
        yield warning(f"the configuration cannot be looked at: {first}", "look again as root")
        return
    more = f" (and {len(others)} more)" if others else ""
    yield failure(
        f"the configuration is wrong: {first}{more}", "`vswap config check` tells everything"
    )

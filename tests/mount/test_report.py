"""A report of a real device, opened in a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from daemon.records_support import NOW, lively
from mount.harness import PAGE, Start, eventually, run_vswap

from vswapd.cli.report_page import page
from vswapd.records import parse_timeline

pytestmark = pytest.mark.mount

SECONDS = 60.0
PAGES = 500
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1000,1400",
]
FASTER = """
from vswapd.control import rings
rings.SPANS = (rings.Span(1, 360), rings.Span(300, 2016))
"""


def browse(document: Path, folder: Path, *flags: str) -> str:
    """What the browser prints."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("there is no chromium")
    command = [program, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags]
    done = subprocess.run(
        [*command, document.as_uri()],
        env={**os.environ, "HOME": str(folder), "TZ": "UTC"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_real_device_s_report_in_a_browser(start: Start, tmp_path: Path) -> None:
    device = start(prelude=FASTER, name=f"report{os.getpid()}")
    assert device.told == "ready", device.stderr()
    document = tmp_path / "report.html"
    early = run_vswap("report", str(device.mount), "-o", str(document), seconds=SECONDS)
    if early.returncode:
        assert "has no history yet" in early.stderr
        assert early.stderr.count("\n") == 1
    fd = os.open(device.swap, os.O_RDWR)
    try:
        os.pwrite(fd, os.urandom(PAGES * PAGE), 0)
        assert len(os.pread(fd, PAGES * PAGE, 0)) == PAGES * PAGE

        def known() -> bool:
            """The sample that has all of it."""
            text = (device.mount / "history.json").read_text()
            return f", {PAGES * PAGE}, " in text

        assert eventually(known)
    finally:
        os.close(fd)
    again = ("--force", "--since", "1h")
    done = run_vswap("report", str(device.mount), "-o", str(document), *again, seconds=SECONDS)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{document}\n", "")
    assert document.stat().st_mode & 0o111 == 0

    dom = browse(document, tmp_path, "--dump-dom")
    assert f"<h1>report{os.getpid()}</h1>" in dom
    assert dom.count("<figure>") == dom.count("<table>") == 6
    assert "2.0M" in dom
    assert re.search(r'<path class="line line-0" d="M[0-9.]+ [0-9.]+', dom)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_picture_is_not_blank(scheme: str, tmp_path: Path) -> None:
    document, picture = tmp_path / "report.html", tmp_path / "picture.png"
    document.write_text(page(parse_timeline(lively(), "swap0"), NOW))
    preferred = [f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"]
    browse(document, tmp_path, f"--screenshot={picture}", *preferred)
    width, height, colours = read_png(picture.read_bytes())
    assert (width, height) == (1000, 1400)
    paper = max(colours, key=lambda colour: colours[colour])
    assert (sum(paper) > 3 * 128) == (scheme == "light")
    strong = [c for c, count in colours.items() if max(c) - min(c) > 100 and count >= 50]
    assert len(strong) >= 3  # the lines of the pictures


def read_png(data: bytes) -> tuple[int, int, dict[tuple[int, int, int], int]]:
    """Width, height, and how many pixels have each colour. Of 8 bits, not interlaced."""
    width, height, depth, kind = struct.unpack(">IIBB", data[16:26])
    assert (depth, kind) in {(8, 2), (8, 6)}
    size = 3 if kind == 2 else 4
    packed, at = b"", 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            packed += data[at + 8 : at + 8 + length]
        at += 12 + length
    raw, colours = zlib.decompress(packed), dict[tuple[int, int, int], int]()
    row = bytearray(width * size)
    for line in range(height):
        start = line * (width * size + 1)
        row = unfiltered(raw[start], raw[start + 1 : start + 1 + width * size], row, size)
        for pixel in range(0, len(row), size):
            colour = row[pixel], row[pixel + 1], row[pixel + 2]
            colours[colour] = colours.get(colour, 0) + 1
    return width, height, colours


def unfiltered(kind: int, line: bytes, above: bytearray, size: int) -> bytearray:
    """PNG specification, section 9: each byte is what it differs by from those around it."""
    found = bytearray(line)
    for at in range(len(found)):
        left = found[at - size] if at >= size else 0
        corner = above[at - size] if at >= size else 0
        up = above[at]
        if kind == 4:
            guess = left + up - corner
            nearest = min((left, up, corner), key=lambda each: abs(guess - each))
        else:
            nearest = (0, left, up, (left + up) // 2)[kind]
        found[at] = found[at] + nearest & 0xFF
    return found


FULL = """
from vswapd.control import rings
def full(ring):
    rows = ring._rows[1:].copy()
    rows["time"] = 1_800_000_000
    if "orig_data_size" in rows.dtype.names:
        rows["orig_data_size"] = 1 << 40
    return rows
rings.Ring.copy = full
"""


def test_a_full_history_can_be_read_while_the_device_serves(start: Start) -> None:
    device = start(prelude=FULL)
    assert device.told == "ready", device.stderr()
    fd = os.open(device.swap, os.O_RDWR)
    try:
        os.pwrite(fd, b"kept", 0)
        with subprocess.Popen(
            ["cat", device.mount / "history.json"], stdout=subprocess.PIPE
        ) as reader:
            assert os.pread(fd, 4, 0) == b"kept"
            assert reader.stdout is not None
            found = json.loads(reader.stdout.read())
    finally:
        os.close(fd)
    assert [len(each["rows"]) for each in found["series"]] == [360, 2016]
    assert {row[2] for each in found["series"] for row in each["rows"]} == {1 << 40}

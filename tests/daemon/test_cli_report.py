"""`vswap report`: the page, where it goes, and what bad input gets."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import pytest
from daemon.records_support import NOW, history, lively, row

from vswap.errors import UserError
from vswapd.cli import main
from vswapd.cli import report as module
from vswapd.cli.report import parse_period
from vswapd.cli.report_page import page
from vswapd.mounts import Device
from vswapd.records import parse_timeline

pytestmark = pytest.mark.usefixtures("kept_signals")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    """The one device there is, in whose place a directory is; another is the current one."""
    mount = tmp_path / "mount"
    mount.mkdir()
    (mount / "history.json").write_bytes(lively())
    device = Device("swap0", str(mount))
    monkeypatch.setattr(module, "find_device", lambda selector: device)
    monkeypatch.setattr("vswapd.cli.report.time.time", lambda: float(NOW))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return device


def failed(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that fails with 2."""
    assert main(["report", *args]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("vswap: ")
    assert said.err.count("\n") == 1
    return said.err.removeprefix("vswap: ").rstrip("\n")


# --- Where it goes ---------------------------------------------------------------------


def test_it_is_written_here_and_said(place: Device, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report"]) == 0
    assert capsys.readouterr().out == "vswap-report.html\n"
    assert Path("vswap-report.html").read_text().startswith("<!DOCTYPE html>")


def test_to_stdout(place: Device, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "-o", "-"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("<!DOCTYPE html>")
    assert said.out.endswith("</html>\n")
    assert said.err == ""
    assert list(Path().iterdir()) == []


def test_what_is_there_is_not_overwritten(
    place: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("there.html").write_text("mine")
    reason = failed(["-o", "there.html"], capsys)
    assert reason == "there.html exists; --force overwrites it, and -o FILE names another"
    assert Path("there.html").read_text() == "mine"


def test_nor_is_what_a_link_to_nowhere_points_to(
    place: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("link.html").symlink_to("nowhere")
    assert "exists" in failed(["-o", "link.html"], capsys)


def test_force_overwrites(place: Device) -> None:
    Path("there.html").write_text("mine")
    assert main(["report", "-o", "there.html", "--force"]) == 0
    assert Path("there.html").read_text().startswith("<!DOCTYPE html>")


def test_a_page_that_cannot_be_written_does_not_cost_the_old_one(
    place: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("there.html").write_text("mine")
    with limit_of_a_file(1000):
        reason = failed(["-o", "there.html", "--force"], capsys)
    assert reason == "there.html cannot be written: File too large"
    assert Path("there.html").read_text() == "mine"
    assert [each.name for each in Path().iterdir()] == ["there.html"]


@contextmanager
def limit_of_a_file(size: int) -> Iterator[None]:
    """Nobody can write more into one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_nor_does_one_that_is_interrupted(place: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("there.html").write_text("mine")

    def interrupt(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    assert main(["report", "-o", "there.html", "--force"]) == 130
    assert Path("there.html").read_text() == "mine"
    assert [each.name for each in Path().iterdir()] == ["there.html"]


def test_what_a_link_points_to_is_overwritten_and_keeps_its_mode(place: Device) -> None:
    Path("there.html").write_text("mine")
    Path("there.html").chmod(0o640)
    Path("link.html").symlink_to("there.html")
    assert main(["report", "-o", "link.html", "--force"]) == 0
    assert Path("link.html").is_symlink()
    assert Path("there.html").read_text().startswith("<!DOCTYPE html>")
    assert Path("there.html").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("path", "why"),
    [("nowhere/x.html", "No such file or directory"), (".", "Is a directory")],
)
def test_a_path_that_cannot_be_written(
    path: str, why: str, place: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    assert failed(["-o", path, "--force"], capsys) == f"{path} cannot be written: {why}"


@pytest.mark.parametrize("options", [[], ["--force"]], ids=["new", "forced"])
def test_no_name_is_a_mistake(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    reason = "--output '' is no file; name one, or leave it out"
    assert failed(["-o", "", *options], capsys) == reason


def test_a_full_disk_is_one_line(place: Device, capsys: pytest.CaptureFixture[str]) -> None:
    reason = failed(["-o", "/dev/full", "--force"], capsys)
    assert reason == "/dev/full cannot be written: No space left on device"
    assert Path("/dev/full").exists()


def test_a_name_that_is_no_text(place: Device, capfd: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"a\xff.html")
    assert main(["report", "-o", name]) == 0
    assert Path(name).exists()


# --- Of which time ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800), ("2h", 7200), ("3d", 259200), ("45s", 45), (" 1h ", 3600)]
)
def test_periods(text: str, seconds: int) -> None:
    assert parse_period(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "-2h", "0h", "2w", "1.5h", "2h30m", "9" * 50 + "d"])
def test_what_is_no_period(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="is no period; write it like 30m, 2h or 3d"):
        parse_period(text)
    assert "is no period" in failed([f"--since={text}"], capsys)


def test_since(place: Device, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--since", "95s", "-o", "-"]) == 0
    assert capsys.readouterr().out.count('<th scope="row">') == 6 * 10


def test_a_time_of_which_nothing_is_known(
    place: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(place.mount, "history.json").write_bytes(history([row(NOW - 4000)]))
    assert "no history of that time" in failed(["--since", "30m"], capsys)
    assert list(Path().iterdir()) == []


def test_a_history_that_has_not_begun(place: Device, capsys: pytest.CaptureFixture[str]) -> None:
    Path(place.mount, "history.json").write_bytes(history([]))
    assert failed([], capsys).startswith("swap0 has no history yet: it has just begun")


def test_a_device_that_has_none(place: Device, capsys: pytest.CaptureFixture[str]) -> None:
    Path(place.mount, "history.json").unlink()
    assert failed([], capsys).startswith("the daemon of swap0 cannot be asked: ")


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--help"]) == 0
    assert "  vswap report swap0 --since 2h -o today.html" in capsys.readouterr().out


# --- The page --------------------------------------------------------------------------

VOID = {"meta", "path"}


class Outline(HTMLParser):
    """Checks that elements are closed in order; notes what there is."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag != "meta":
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str) -> int:
        return [name for name, _ in self.seen].count(tag)


def outline(text: bytes) -> Outline:
    return Outline(page(parse_timeline(text, "swap0"), NOW))


def test_each_picture_has_a_title_and_a_table() -> None:
    found = outline(lively())
    assert found.count("figure") == found.count("table") == found.count("h2") == 6
    pictures = [attributes for tag, attributes in found.seen if tag == "svg"]
    assert sum(each.get("role") == "img" for each in pictures) == 6
    assert all(each.get("aria-label") or each.get("aria-hidden") for each in pictures)


def test_it_needs_nothing_but_itself() -> None:
    html = page(parse_timeline(lively(), "swap0"), NOW)
    found = Outline(html)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in found.seen}
    assert not any({"src", "href"} & attributes.keys() for _, attributes in found.seen)
    assert "url(" not in html
    assert "http" not in html
    assert "prefers-color-scheme: dark" in html


def test_names_are_escaped() -> None:
    hostile = '</title><script>alert("1")</script>\x1b[2J'
    found = outline(history([row(NOW)], name=hostile, version=hostile))
    assert found.count("script") == 0
    assert '<script>alert("1")</script>?[2J' in found.text


def test_it_says_how_things_are() -> None:
    text = outline(lively()).text
    assert "swapped out401Mof 1.0G" in text  # 400 of pages, and a MiB of those of one word
    assert "memory it takes60Mno limit" in text
    assert "memory saved341M" in text
    assert "ratio10.00" in text
    assert "has not been replaced" in text


@pytest.mark.parametrize(("restarts", "said"), [(1, "once"), (5, "5 times")])
def test_it_says_how_often_the_worker_was_replaced(restarts: int, said: str) -> None:
    text = outline(history([row(NOW)], worker_restarts=restarts)).text
    assert f"The worker has been replaced {said}; the history began at " in text


def test_takeovers_are_marked_and_listed() -> None:
    """Those of the time that is drawn, in each picture."""
    times = (NOW - 9000, NOW - 100, NOW - 50)
    said = [
        {"time": at, "worker_restarts": number, "version": "0.<8>"}
        for number, at in enumerate(times, 1)
    ]
    html = page(parse_timeline(lively(takeovers=said), "swap0"), NOW)
    found = Outline(html)
    assert html.count('class="mark"') == 6 * 2
    assert found.count("li") == 3
    assert "number 3, by version 0.<8>" in found.text
    assert "Takeovers" not in outline(lively()).text


def test_it_does_not_grow_with_the_history() -> None:
    long = [row(NOW + 300 * at, 300.0, orig_data_size=at << 20) for at in range(2016)]
    html = page(parse_timeline(history([], long), "swap0"), NOW)
    assert len(html) < 150_000
    assert max(path.count("L") for path in re.findall(r' d="(.*?)"', html)) < 400


def test_the_least_there_can_be() -> None:
    assert outline(history([row(NOW)])).count("figure") == 6


def test_numbers_without_sense_are_no_fault() -> None:
    huge = dict.fromkeys(["orig_data_size", "pages_read", "read_p99_us", "failed_reads"], 1e19)
    odd = row(NOW, 10.0, mem_used_total=-(2**60), write_p50_us=-5.0, compr_data_size=-7, **huge)
    found = outline(history([odd, row(NOW + 10)], size=-1, began=-1e19, worker_restarts=-1))
    assert found.count("figure") == 6

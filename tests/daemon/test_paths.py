"""Paths as a person types them: made absolute, looked along, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from vswap.errors import UserError
from vswapd.paths import absolute, check_path, target

LONG = "n" * 256


def refusal(path: str) -> str:
    with pytest.raises(UserError) as caught:
        check_path(path, "backing")
    return str(caught.value)


def test_a_relative_path_is_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is a link in it stays one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("there")
    assert absolute("link/../f") == tmp_path / "link" / ".." / "f"
    assert absolute("/a/b") == Path("/a/b")


def test_in_a_directory_that_is_gone_no_path_is_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UserError, match=r"^f cannot be used: the working directory is gone$"):
        absolute("f")
    assert absolute("/f") == Path("/f")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("", "backing '' must be an absolute path"),
        ("a/b", "backing 'a/b' must be an absolute path"),
        ("/a\0", "backing '/a\\x00' is no path"),
        ("/a\ud800", "backing '/a\\ud800' is no path"),
        (f"/{LONG}/b", f"backing '/{LONG}/b' cannot be used: File name too long"),
        (f"/{'ä' * 128}", f"backing '/{'ä' * 128}' cannot be used: File name too long"),
        ("/a" * 2048, f"backing '{'/a' * 2048}' cannot be used: File name too long"),
    ],
)
def test_what_can_be_no_path_is_refused(path: str, reason: str) -> None:
    assert refusal(path) == reason


@pytest.mark.parametrize("path", ["/", "/a", f"/{LONG[1:]}", "/" + "/a" * 2047])
def test_what_can_be_a_path_is_taken(path: str) -> None:
    """The longest as well: 255 bytes of a name, and 4,095 of a path."""
    check_path(path, "backing")


def test_the_kernel_refuses_what_is_refused_as_too_long_and_no_other(tmp_path: Path) -> None:
    """The limits are its own."""
    with pytest.raises(OSError, match="File name too long"):
        (tmp_path / LONG).stat()
    with pytest.raises(OSError, match="File name too long"):
        Path("/a" * 2048).stat()
    with pytest.raises(FileNotFoundError):
        (tmp_path / LONG[1:]).stat()
    with pytest.raises(FileNotFoundError):
        Path("/" + "/a" * 2047).stat()


def test_target_is_what_a_link_names(tmp_path: Path) -> None:
    """And None for what is no link, or is not there."""
    (tmp_path / "link").symlink_to("there")
    assert target(tmp_path / "link") == Path("there")
    assert target(tmp_path) is None
    assert target(tmp_path / "there") is None


def test_nobody_can_say_where_what_is_too_long_leads(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be used: File name too long"):
        target(tmp_path / LONG)

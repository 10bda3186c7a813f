"""Files come, and go again; what somebody has changed stays."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from vswap.errors import UserError
from vswapd.manifest import File, Installed, Step, Verb

A, B = Path("/usr/local/share/a"), Path("/etc/b")
LIST = "var/lib/vswap/installed.json"
EMPTY = ["var", "var/lib"]
KILLED = 9
LARGEST = 4096


def files(a: str = "a", b: str = "b") -> list[File]:
    return [File(A, a.encode(), 0o755), File(B, b.encode())]


def install(root: Path, wanted: list[File]) -> list[str]:
    installed = Installed.read(root)
    steps = installed.to_install(wanted)
    installed.install("/usr/local", wanted, steps)
    return verbs(steps)


def uninstall(root: Path) -> list[str]:
    installed = Installed.read(root)
    steps = installed.to_uninstall()
    installed.uninstall(steps)
    return verbs(steps)


def verbs(steps: list[Step]) -> list[str]:
    return [step.verb.value for step in steps]


def under(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def test_all_comes_and_goes(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    assert install(tmp_path, files()) == ["write", "write"]
    assert under(tmp_path, A).read_text() == "a"
    assert under(tmp_path, A).stat().st_mode & 0o777 == 0o755
    assert install(tmp_path, files()) == ["same", "same"]
    assert uninstall(tmp_path) == ["remove", "remove"]
    assert [path.name for path in tmp_path.rglob("*")] == ["etc"]  # which was there
    assert uninstall(tmp_path) == []


def test_to_plan_changes_nothing(tmp_path: Path) -> None:
    assert verbs(Installed.read(tmp_path).to_install(files())) == ["write", "write"]
    assert list(tmp_path.iterdir()) == []


def test_a_new_version_replaces_what_we_wrote(tmp_path: Path) -> None:
    install(tmp_path, files())
    assert install(tmp_path, files(a="newer")) == ["write", "same"]
    assert under(tmp_path, A).read_text() == "newer"
    assert uninstall(tmp_path) == ["remove", "remove"]


def test_what_a_new_version_has_no_more_is_removed(tmp_path: Path) -> None:
    install(tmp_path, files())
    assert install(tmp_path, files()[:1]) == ["same", "remove"]
    assert not under(tmp_path, B).exists()


def test_what_somebody_has_changed_is_kept(tmp_path: Path) -> None:
    install(tmp_path, files())
    under(tmp_path, B).write_text("mine")
    assert install(tmp_path, files(b="newer")) == ["same", "keep"]
    assert uninstall(tmp_path) == ["remove", "keep"]
    assert under(tmp_path, B).read_text() == "mine"
    assert uninstall(tmp_path) == []


def test_what_was_there_before_is_kept_and_never_removed(tmp_path: Path) -> None:
    under(tmp_path, B).parent.mkdir()
    under(tmp_path, B).write_text("theirs")
    assert install(tmp_path, files()) == ["write", "keep"]
    assert uninstall(tmp_path) == ["remove"]
    assert under(tmp_path, B).read_text() == "theirs"


def test_a_link_is_somebody_s_and_is_not_followed(tmp_path: Path) -> None:
    under(tmp_path, B).parent.mkdir()
    (tmp_path / "target").write_text("b")
    under(tmp_path, B).symlink_to(tmp_path / "target")
    assert install(tmp_path, files(b="other")) == ["write", "keep"]
    assert (tmp_path / "target").read_text() == "b"


def test_a_file_that_somebody_has_removed_is_written_again(tmp_path: Path) -> None:
    install(tmp_path, files())
    under(tmp_path, A).unlink()
    assert install(tmp_path, files()) == ["write", "same"]


def system(root: Path) -> Path:
    """One that has nothing but what every system has."""
    (root / "var/lib").mkdir(parents=True)
    return root


@contextmanager
def small_files() -> Iterator[None]:
    """What writes more than `LARGEST` bytes to a file fails."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def killed_at(step: int, root: Path, change: Callable[[Path], object]) -> bool:
    """Run `change` in a process that is killed before its `step`th change of what is in `root`."""
    pid = os.fork()
    if not pid:
        left = iter(range(step))

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            changes = event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod")
            opens = event == "open" and arguments[1] == "wb"
            ours = (changes or opens) and str(arguments[0]).startswith(str(root))
            if ours and next(left, None) is None:
                os._exit(KILLED)

        status = 1
        try:
            sys.addaudithook(hook)
            change(root)
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, KILLED)
    return status == KILLED


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_an_interrupted_installation_is_undone(tmp_path: Path) -> None:
    for step in count():
        root = system(tmp_path / str(step))
        killed = killed_at(step, root, lambda root: install(root, files()))
        uninstall(root)
        assert names(root) == EMPTY, step
        if not killed:
            break
    assert step > len(files()) * 4


def test_an_interrupted_installation_is_completed(tmp_path: Path) -> None:
    for step in count():
        root = system(tmp_path / str(step))
        killed = killed_at(step, root, lambda root: install(root, files()))
        install(root, files())
        assert (under(root, A).read_text(), under(root, B).read_text()) == ("a", "b")
        assert uninstall(root) == ["remove", "remove"]
        assert names(root) == EMPTY, step
        if not killed:
            break


def test_an_interrupted_upgrade_is_undone(tmp_path: Path) -> None:
    """Also when another one was interrupted before it."""
    for step in count():
        root = system(tmp_path / str(step))
        install(root, files())
        killed_at(step, root, lambda root: install(root, files(a="newer")[:1]))
        killed = killed_at(step, root, lambda root: install(root, files(a="newest", b="newest")))
        assert "keep" not in uninstall(root)
        assert names(root) == EMPTY, step
        if not killed:
            break


def test_an_interrupted_uninstallation_is_completed(tmp_path: Path) -> None:
    for step in count():
        root = system(tmp_path / str(step))
        install(root, files())
        killed = killed_at(step, root, uninstall)
        uninstall(root)
        assert names(root) == EMPTY, step
        if not killed:
            break
    assert step > len(files())


def test_an_installation_that_fails_is_undone(tmp_path: Path) -> None:
    root = system(tmp_path)
    with small_files(), pytest.raises(OSError, match="too large"):
        install(root, [files()[0], File(B, bytes(2 * LARGEST))])
    assert under(root, A).exists()
    assert [path.name for path in under(root, B).parent.iterdir()] == []
    assert uninstall(root) == ["remove"]
    assert names(root) == EMPTY


def test_a_directory_with_something_else_in_it_stays(tmp_path: Path) -> None:
    install(tmp_path, files())
    (under(tmp_path, A).parent / "other").touch()
    uninstall(tmp_path)
    assert (under(tmp_path, A).parent / "other").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"prefix": "/", "files": [], "directories": 1}',
        '{"prefix": "/", "files": {"/a": 1}, "directories": []}',
    ],
)
def test_a_list_that_makes_no_sense_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / LIST).parent.mkdir(parents=True)
    (tmp_path / LIST).write_text(text)
    with pytest.raises(UserError, match="makes no sense"):
        Installed.read(tmp_path)


def test_a_list_with_one_checksum_for_each_file_is_understood(tmp_path: Path) -> None:
    """As they were before there could be several."""
    install(tmp_path, files())
    place = tmp_path / LIST
    values = json.loads(place.read_text())
    values["files"] = {path: digest for path, (digest,) in values["files"].items()}
    place.write_text(json.dumps(values))
    assert install(tmp_path, files(a="newer")) == ["write", "same"]
    assert uninstall(tmp_path) == ["remove", "remove"]


def test_the_verbs_are_told_by_different_words() -> None:
    assert len({verb.value for verb in Verb}) == len(Verb)

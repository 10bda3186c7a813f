"""The documents tell of what is there: modules, files, headings, options, alerts, messages.

They are read as they are, so whoever renames something is told which sentence to change.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from vswapd.confkeys import KEYS

ROOT = Path(__file__).parent.parent
SOURCES = {"vswap": ROOT / "vswap", "vswapd": ROOT / "daemon" / "vswapd"}
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
ARCHITECTURE = ROOT / "docs" / "architecture.md"
OPERATIONS = ROOT / "docs" / "operations.md"
LEAST_LITERAL = 10
"""So many characters of a message must be the code's own, or anything would be one."""

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_PATH = re.compile(
    r"(?<![\w/.@-])(?:docs|tests|bench|systemd|requirements|daemon|vswap|\.ci)/[\w./-]*\w"
)
_MADE = "bench/out"  # by the benchmarks
_NAME = re.compile(r"`(vswapd?(?:\.[a-z_0-9]+)+)`")
_SECTION = re.compile(r"^### `([\w.]+)`\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)

documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def file_of(name: str) -> Path | None:
    """The file of a module or package by its full name, if there is one."""
    top, *parts = name.split(".")
    path = SOURCES[top].joinpath(*parts)
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


def packages() -> set[str]:
    """The full names of all packages."""
    return {
        ".".join([top, *path.parent.relative_to(folder).parts])
        for top, folder in SOURCES.items()
        for path in folder.rglob("__init__.py")
    }


def is_there(name: str) -> bool:
    """Whether a dotted name is a module's, or that of something a module defines."""
    if file_of(name):
        return True
    module, _, last = name.rpartition(".")
    file = file_of(module) if "." in module else None
    return file is not None and bool(re.search(rf"^(def|class) {last}\b", file.read_text(), re.M))


def headings(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


# --- Links and paths --------------------------------------------------------------------


@documents
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for link in _LINK.findall(document.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if not target.exists() or (anchor and anchor not in headings(target)):
            broken.append(link)
    assert broken == []


@documents
def test_paths_in_the_text_are_there(document: Path) -> None:
    named = set(_PATH.findall(document.read_text()))
    assert [path for path in sorted(named) if path != _MADE and not gone_well(path)] == []


def gone_well(path: str) -> bool:
    return path.startswith(_MADE + "/") or (ROOT / path).exists()


def test_every_document_is_linked_from_the_map_or_the_readme() -> None:
    text = ARCHITECTURE.read_text() + (ROOT / "README.md").read_text()
    assert [path.name for path in DOCUMENTS if path.parent != ROOT and path.name not in text] == []


# --- Installing -------------------------------------------------------------------------


def installing() -> str:
    """The commands by which the README installs it."""
    found = re.search(
        r"### Installing it\n+```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    assert found
    return found[1]


def test_it_is_installed_with_the_packages_of_the_script() -> None:
    (packages,) = re.findall(r"^run_packages=\((.*)\)$", (ROOT / "vswap.sh").read_text(), re.M)
    (typed,) = re.findall(r"^apt-get install (.*)$", installing(), re.M)
    assert set(typed.split()) == set(packages.split())


def test_what_is_built_is_built_with_pinned_tools() -> None:
    """As the script does it: the tools, then what is built with them, then the project."""
    steps = [line for line in installing().splitlines() if "pip install" in line]
    assert [re.findall(r"requirements/(\w+)", step) for step in steps] == [["build"], ["run"], []]
    assert ["--require-hashes" in step for step in steps] == [True, True, False]
    assert ["--no-build-isolation" in step for step in steps] == [False, True, True]


# --- The map ----------------------------------------------------------------------------


@documents
def test_modules_that_are_named_are_there(document: Path) -> None:
    named = set(_NAME.findall(document.read_text()))
    assert [name for name in sorted(named) if not is_there(name)] == []


def test_the_map_has_every_package_and_no_other() -> None:
    assert {name for name, _ in _SECTION.findall(ARCHITECTURE.read_text())} == packages()


def modules() -> set[str]:
    """The full names of all modules that are no packages, but for those that only start others."""
    return {
        ".".join([top, *path.relative_to(folder).with_suffix("").parts])
        for top, folder in SOURCES.items()
        for path in folder.rglob("*.py")
        if path.name not in ("__init__.py", "__main__.py")
    }


def test_the_map_s_tables_have_every_module_and_no_other() -> None:
    sections = _SECTION.findall(ARCHITECTURE.read_text())
    named = [f"{name}.{module}" for name, text in sections for module in _ROW.findall(text)]
    assert len(named) == len(set(named))
    assert sorted(modules() - set(named)) == []
    assert sorted(set(named) - modules()) == []


# --- Operations -------------------------------------------------------------------------


def test_every_key_of_a_configuration_is_told_of() -> None:
    text = OPERATIONS.read_text()
    assert [key for key in KEYS if f"`--{key}`" not in text and f"`--no-{key}`" not in text] == []


def test_alerts_that_are_named_are_there() -> None:
    rules = (ROOT / "systemd" / "prometheus" / "vswap.rules.yml").read_text()
    alerts = set(re.findall(r"alert: (\w+)", rules))
    assert alerts == set(re.findall(r"`(Vswap[A-Za-z]+)`", OPERATIONS.read_text()))


def texts(tree: ast.AST) -> Iterator[list[str]]:
    """The literal parts of every text in a source, in order; what is filled in lies between."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [""]
            for value in node.values:
                if isinstance(value, ast.Constant):
                    parts[-1] += str(value.value)
                else:
                    parts.append("")
            yield parts
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.split(r"%[srd]", node.value)


@cache
def messages() -> list[re.Pattern[str]]:
    """What matches a text of the code with anything filled in, if enough of it is literal."""
    found = {
        tuple(parts)
        for folder in SOURCES.values()
        for path in folder.rglob("*.py")
        for parts in texts(ast.parse(path.read_text()))
        if len("".join(parts)) >= LEAST_LITERAL and "\n" not in "".join(parts)
    }
    return [re.compile(".*".join(map(re.escape, parts))) for parts in found]


def quoted() -> list[str]:
    """The messages in the document: the lines of its blocks of text."""
    blocks = re.findall(r"^```text\n(.*?)^```$", OPERATIONS.read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def is_said(message: str) -> bool:
    """Whether it is a whole text of the code, with something filled in."""
    return any(said.fullmatch(message) for said in messages())


def test_quoted_messages_are_the_code_s() -> None:
    assert len(quoted()) > 20
    assert [message for message in quoted() if not is_said(message)] == []


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("the daemon of swap0 does not answer (waited 5 s)", True),
        ("the daemon of swap0 does not reply (waited 5 s)", False),
        ("the daemon of swap0 does not answer", False),
        ("anything at all", False),
    ],
)
def test_a_message_is_told_from_what_nobody_says(message: str, said: bool) -> None:
    assert is_said(message) is said

"""The import graph has the layers of the design.

All imports count, in functions too, but those under TYPE_CHECKING: they are never executed.
The rules are functions of a graph, so that each is tried on a graph that breaks it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import vswap.codec
import vswapd.config

ROOT = Path(__file__).parent.parent
SOURCES = {"vswap": ROOT / "vswap", "vswapd": ROOT / "daemon" / "vswapd"}

FRAMEWORKS = {"trio", "pyfuse3"}

# --- Reading imports --------------------------------------------------------------------


@dataclass
class Graph:
    """The modules of the project by their full names, and what each imports.

    `inside` holds the project's own modules, with the packages that are executed on the way
    to them, but for those the importer lies in: they are being executed already, and an
    import of something else in them asks nothing of them. `outside` holds the first names
    of all other modules.
    """

    inside: dict[str, set[str]] = field(default_factory=dict)
    outside: dict[str, set[str]] = field(default_factory=dict)


def imported_names(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[str, str]]:
    """What is imported, as (module, name), where `import module` has no name."""
    for node in executed(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")
                above = parents[: len(parents) - node.level + is_package]
                base = ".".join([*above, *filter(None, [node.module])])
            yield from ((base, alias.name) for alias in node.names)


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but the bodies of `if TYPE_CHECKING`."""
    yield node
    children: Iterable[ast.AST] = ast.iter_child_nodes(node)
    if isinstance(node, ast.If) and ast.unparse(node.test).split(".")[-1] == "TYPE_CHECKING":
        children = node.orelse
    for child in children:
        yield from executed(child)


def packages_of(module: str) -> list[str]:
    """The packages that a module lies in, from the outermost."""
    parts = module.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


def graph_of(sources: dict[str, str], packages: set[str]) -> Graph:
    """The graph of modules given as {name: source}, `packages` being which are packages."""
    graph = Graph()
    tops = {name.split(".")[0] for name in sources}
    for module, source in sources.items():
        inside, outside = set[str](), set[str]()
        around = {module, *packages_of(module)}
        for base, name in imported_names(ast.parse(source), module, module in packages):
            target = f"{base}.{name}" if f"{base}.{name}" in sources else base
            if target.split(".")[0] in tops:
                inside |= {target} | set(packages_of(target)) - around
            else:
                outside.add(target.split(".")[0])
        graph.inside[module] = inside - {module}
        graph.outside[module] = outside
    return graph


@pytest.fixture(scope="module")
def project() -> Graph:
    """The graph of what is there."""
    sources, packages = {}, set()
    for top, folder in SOURCES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [top, *path.relative_to(folder).with_suffix("").parts]
            if parts[-1] == "__init__":
                parts.pop()
                packages.add(".".join(parts))
            sources[".".join(parts)] = path.read_text()
    return graph_of(sources, packages)


# --- The rules --------------------------------------------------------------------------


def under(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def reached(graph: Graph, start: str) -> set[str]:
    """What is executed when `start` is imported, itself and the packages around it included."""
    found: set[str] = set()
    waiting = [start, *packages_of(start)]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += graph.inside.get(module, ())
    return found


def breaches(graph: Graph, package: str, forbidden: set[str]) -> list[str]:
    """What under `package` imports, if only by way of others, of what is `forbidden`."""
    found = []
    for module in sorted(graph.inside):
        if not under(module, package):
            continue
        for other in sorted(reached(graph, module)):
            found += [
                f"{module} imports {name} in {other}"
                for name in sorted(graph.outside.get(other, set()) & forbidden)
            ]
            found += [
                f"{module} imports {other}" for name in sorted(forbidden) if under(other, name)
            ]
    return found


def strangers(graph: Graph, start: str) -> list[str]:
    """What `start` imports, if only by way of others, of neither us nor the standard library."""
    known = sys.stdlib_module_names
    return [
        f"{start} imports {name} in {module}"
        for module in sorted(reached(graph, start))
        for name in sorted(graph.outside.get(module, set()) - known)
    ]


def cycles(graph: Graph) -> list[str]:
    """Modules that, by way of others, import themselves; each cycle once."""
    found = []
    state: dict[str, bool] = {}  # whether a module has been looked at to the end

    def visit(module: str, path: list[str]) -> None:
        state[module] = False
        for other in sorted(graph.inside.get(module, ())):
            if other not in state:
                visit(other, [*path, other])
            elif not state[other]:
                found.append(" -> ".join([*path[path.index(other) :], other]))
        state[module] = True

    for module in sorted(graph.inside):
        if module not in state:
            visit(module, [module])
    return found


# --- The project ------------------------------------------------------------------------


def test_the_graph_is_of_the_whole_project(project: Graph) -> None:
    """Or the rules would hold of nothing."""
    assert {"vswap.store.lane", "vswap.proto.abi", "vswapd.channel.router"} <= set(project.inside)
    assert "vswap.store.log" in project.inside["vswap.store.appender"]
    assert "trio" in project.outside["vswapd.worker"]


def test_the_engine_imports_no_framework_and_no_daemon(project: Graph) -> None:
    assert breaches(project, "vswap", {*FRAMEWORKS, "vswapd"}) == []


def test_the_store_does_not_import_the_protocol(project: Graph) -> None:
    assert breaches(project, "vswap.store", {"vswap.proto"}) == []


def test_the_protocol_does_not_import_the_store(project: Graph) -> None:
    assert breaches(project, "vswap.proto", {"vswap.store"}) == []


def test_the_data_plane_imports_no_framework(project: Graph) -> None:
    assert breaches(project, "vswapd.channel", FRAMEWORKS) == []


def test_the_data_plane_does_not_import_the_control_plane(project: Graph) -> None:
    assert breaches(project, "vswapd.channel", {"vswapd.control"}) == []


def test_the_commands_import_no_framework(project: Graph) -> None:
    """A command starts fast (vswapd/cli/__init__.py)."""
    assert breaches(project, "vswapd.cli", FRAMEWORKS) == []


def test_the_checks_of_a_machine_know_no_command(project: Graph) -> None:
    """They are functions of files, which whoever likes may call."""
    assert breaches(project, "vswapd.doctor", {*FRAMEWORKS, "vswapd.cli"}) == []


def test_the_supervisor_imports_the_standard_library_alone(project: Graph) -> None:
    """It is small, starts fast, and no fault of somebody else's can end it."""
    assert strangers(project, "vswapd.supervise") == []


def test_the_supervisor_knows_nothing_of_what_is_stored(project: Graph) -> None:
    """Nor of workers: it would import them when it is too late."""
    ours = {module for module in reached(project, "vswapd.supervise") if module in project.inside}
    stored = {module for module in ours if under(module, "vswap.store")}
    served = {module for module in ours if under(module, "vswapd.channel")}
    assert (stored, served) == (set(), set())


def test_nothing_imports_itself_by_way_of_others(project: Graph) -> None:
    assert cycles(project) == []


def test_the_settings_know_all_codecs_and_no_others() -> None:
    """They name them once more, so that a command need not import the compressors."""
    assert set(vswapd.config.CODECS) == set(vswap.codec.CODECS)


# --- The rules on graphs that break them ------------------------------------------------


def synthetic(**sources: str) -> Graph:
    """A graph of modules named with two underscores for a dot; `x__init` is package x."""
    named = {
        name.removesuffix("__init").replace("__", "."): source for name, source in sources.items()
    }
    packages = {
        name.removesuffix("__init").replace("__", ".") for name in sources if "__init" in name
    }
    return graph_of(named, packages)


def test_a_direct_import_is_a_breach() -> None:
    graph = synthetic(vswap__init="", vswap__store="import trio")
    assert breaches(graph, "vswap", {"trio"}) == ["vswap.store imports trio in vswap.store"]


@pytest.mark.parametrize(
    "source",
    [
        "import trio.lowlevel",
        "from trio import sleep",
        "from trio.lowlevel import checkpoint",
        "import trio as harmless",
        "import os, trio",
        "def late():\n    import trio",
        "class Late:\n    def method(self):\n        from trio import sleep",
        "try:\n    import trio\nexcept ImportError:\n    pass",
        "if not TYPE_CHECKING:\n    import trio",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import trio",
    ],
)
def test_every_form_of_import_is_seen(source: str) -> None:
    assert synthetic(a=source).outside["a"] & {"trio"} == {"trio"}


@pytest.mark.parametrize("guard", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
def test_what_is_for_type_checkers_only_is_no_import(guard: str) -> None:
    assert synthetic(a=f"if {guard}:\n    import trio").outside["a"] == set()


def test_an_import_by_way_of_another_module_is_a_breach() -> None:
    graph = synthetic(
        d__init="", d__channel="from d import help", d__help="import d.deep", d__deep="import trio"
    )
    assert breaches(graph, "d.channel", {"trio"}) == ["d.channel imports trio in d.deep"]


def test_an_import_by_way_of_a_package_is_a_breach() -> None:
    """`import d.control.text` executes d/control/__init__.py too."""
    graph = synthetic(
        d__init="",
        d__channel="import d.control.text",
        d__control__init="import trio",
        d__control__text="",
    )
    assert breaches(graph, "d.channel", {"trio"}) == ["d.channel imports trio in d.control"]


def test_an_import_in_the_package_around_is_a_breach() -> None:
    graph = synthetic(d__init="import trio", d__channel="")
    assert breaches(graph, "d.channel", {"trio"}) == ["d.channel imports trio in d"]


def test_a_forbidden_module_of_the_project_is_a_breach() -> None:
    graph = synthetic(
        v__init="",
        v__proto__init="",
        v__proto__abi="",
        v__store__init="",
        v__store__lane="from v.proto import abi",
    )
    assert breaches(graph, "v.store", {"v.proto"}) == [
        "v.store.lane imports v.proto",
        "v.store.lane imports v.proto.abi",
    ]


def test_what_is_not_of_the_standard_library_is_a_stranger() -> None:
    graph = synthetic(
        v__init="import os, json.decoder",
        v__first="from v import second\nimport v.third",
        v__second="def late():\n    import numpy.random",
        v__third="from __future__ import annotations\nimport select, trio",
        v__other="import lz4",
    )
    assert strangers(graph, "v.first") == [
        "v.first imports numpy in v.second",
        "v.first imports trio in v.third",
    ]
    assert strangers(graph, "v") == []


def test_a_relative_import_is_a_breach() -> None:
    graph = synthetic(
        v__init="", v__proto="", v__store__init="from .. import proto", v__store__lane=""
    )
    assert breaches(graph, "v.store", {"v.proto"}) != []
    graph = synthetic(
        v__init="", v__proto="", v__store__init="", v__store__lane="from ..proto import x"
    )
    assert breaches(graph, "v.store", {"v.proto"}) == ["v.store.lane imports v.proto"]


def test_a_name_that_only_begins_alike_is_no_breach() -> None:
    graph = synthetic(v__init="", v__store="import v.protocol\nimport triolet", v__protocol="")
    assert breaches(graph, "v.store", {"v.proto", "trio"}) == []


def test_two_modules_that_import_each_other_are_a_cycle() -> None:
    assert cycles(synthetic(a="import b", b="import a")) == ["a -> b -> a"]


def test_a_longer_cycle_is_found_wherever_it_begins() -> None:
    graph = synthetic(a="import b", b="import c", c="import d", d="import b")
    assert cycles(graph) == ["b -> c -> d -> b"]


def test_an_import_in_a_function_can_close_a_cycle() -> None:
    assert cycles(synthetic(a="import b", b="def late():\n    import a")) == ["a -> b -> a"]


def test_an_import_for_type_checkers_closes_no_cycle() -> None:
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a"
    assert cycles(synthetic(a="import b", b=source)) == []


def test_a_name_out_of_the_package_around_closes_a_cycle() -> None:
    """The package imports the module, and the module what the package has made of it."""
    graph = synthetic(p__init="from p.one import x", p__one="from p import y")
    assert cycles(graph) == ["p -> p.one -> p"]


def test_a_module_out_of_the_package_around_closes_none() -> None:
    graph = synthetic(p__init="from p.one import x", p__one="from p import two", p__two="")
    assert cycles(graph) == []


def test_two_packages_that_execute_each_other_are_a_cycle() -> None:
    graph = synthetic(
        p__init="", p__one="import q.deep", q__init="import p.one", q__deep="import os"
    )
    assert cycles(graph) == ["p.one -> q -> p.one"]


def test_a_diamond_is_no_cycle() -> None:
    assert cycles(synthetic(a="import b, c", b="import d", c="import d", d="")) == []

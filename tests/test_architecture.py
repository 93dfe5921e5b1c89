"""Rules that the source keeps, read from its syntax trees."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "sizeless"
MODULES = sorted(SOURCE.rglob("*.py"))

# From the ground up: a room may import rooms of lower floors, never of its own floor or above.
# The facade is `sizeless` itself, the public names in one place.
FLOORS = (
    {"_files", "_precision"},
    {"_validate", "_example"},
    {"functional", "kernels"},
    {"nn"},
    {"_calls", "machine"},
    {"_amounts"},
    {"sizes", "surgery"},
    {"models", "trajectories"},
    {"cost"},
    {"penalties", "budget", "compat"},
    {"facade"},
    {"study", "train", "bench", "export"},
    {"cli"},
    {"__main__"},
)
FLOOR = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
NEEDS_EXTRAS = {"study", "train", "bench", "export", "cli", "__main__"}
MATHEMATICS = {"functional", "kernels", "nn"}
GLOBAL_SEEDS = {"manual_seed", "seed_everything", "set_rng_state"}
HOST_READS = {"item", "tolist", "numpy", "cpu"}


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def room_of(path: Path) -> str:
    """The first folder or module under the package."""
    first = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    return "facade" if first == "__init__" else first


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports_of(path: Path) -> Iterator[str]:
    """Absolute dotted names of all that a module imports, in whatever scope."""
    package = ("sizeless", *path.relative_to(SOURCE).parts[:-1])
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else ()
            module = (*base, *([node.module] if node.module else []))
            # `from sizeless import nn` names a room only in its list of names.
            yield from (".".join((*module, alias.name)) for alias in node.names)


modules = pytest.mark.parametrize("path", MODULES, ids=name_of)


def test_the_source_was_found():
    assert MODULES


@modules
def test_imports_run_downward_only(path):
    room = room_of(path)
    assert room in FLOOR, f"{room} has no place in FLOORS: put it on the floor where it belongs"
    for name in imports_of(path):
        package, *rest = name.split(".")
        if package != "sizeless":
            continue
        other = rest[0] if rest and rest[0] in FLOOR else "facade"
        assert other == room or FLOOR[other] < FLOOR[room], f"{name} is not below {room}"


@modules
def test_the_core_imports_torch_and_the_standard_library_only(path):
    if room_of(path) in NEEDS_EXTRAS:
        return
    allowed = {"sizeless", "torch", *sys.stdlib_module_names}
    assert {name.split(".")[0] for name in imports_of(path)} <= allowed


@modules
def test_the_core_leaves_global_generators_alone(path):
    if room_of(path) in NEEDS_EXTRAS:
        return
    assert not called_attributes(tree_of(path)) & GLOBAL_SEEDS


@modules
def test_forward_reads_nothing_back_to_the_host(path):
    if room_of(path) not in MATHEMATICS:
        return
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef) and node.name == "forward":
            read = called_attributes(node) & HOST_READS
            assert not read, f"line {node.lineno}: forward must trace, but calls {sorted(read)}"


@pytest.mark.parametrize(
    "path", [*MODULES, *sorted((ROOT / "tests").rglob("*.py"))], ids=lambda p: p.name
)
def test_a_file_stays_under_400_lines(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines < 400


def called_attributes(tree: ast.AST) -> set[str]:
    """Names of the methods and dotted functions called anywhere in ``tree``."""
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {function.attr for function in calls if isinstance(function, ast.Attribute)}

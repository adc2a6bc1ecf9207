"""An arrow goes only downwards: the rooms of the package, and what each may import, by statement or by a name in a string."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import revbench

PACKAGE = Path(revbench.__file__).parent

# From the top to the bottom; what stands on one floor knows nothing of its neighbours.
FLOORS = (
    ("__main__",),
    ("cli", "pytest_plugin"),
    ("launch", "suite_cases"),
    ("tiers",),
    ("report",),
    ("compare",),
    ("runner",),
    ("checkup", "training"),
    ("results", "prediction"),
    ("probes",),
    ("numerics",),
    ("by_value", "peers", "workload", "zoo"),
    ("factories",),
    ("devices", "models"),
    ("backprop",),
    ("case",),
    ("paper",),
    ("terminal", "units", "observing"),
    ("choices", "errors", "imports"),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# Names of models in cases: what a case names is built in a room above it, as everybody's own network is.
NAMES_OF_MODELS = {("case", "revbench.peers"), ("case", "revbench.by_value")}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "revbench"


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if parts[1] != "suites":  # package data of a wheel
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def docstrings(tree: ast.Module) -> set[int]:
    """The nodes of strings that stand as statements of their own."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def named(tree: ast.Module) -> Iterator[str]:
    """Every module of the package that a file imports, or names in a string by which something is imported."""
    yield from imported(tree)
    prose = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield from re.findall(r"\A(revbench(?:\.\w+)+)(?::[\w.]*)?\Z", node.value)


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module that a file imports, anywhere in it, also for types alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_an_arrow_goes_only_downwards() -> None:
    wrong = []
    rooms = set()
    for module, tree in modules():
        room = room_of(module)
        rooms.add(room)
        for name in named(tree):
            if not name.startswith("revbench.") or room_of(name) not in FLOOR_OF or room == "revbench":
                continue
            if (
                room != room_of(name)
                and FLOOR_OF[room] >= FLOOR_OF[room_of(name)]
                and (room, name) not in NAMES_OF_MODELS
            ):
                wrong.append(f"{module} -> {name}")
    assert not wrong
    assert rooms - {"revbench"} == set(FLOOR_OF), "a room has no floor, or a floor has no room"


def test_strings_that_name_modules_are_seen() -> None:
    """The test above would be blind without them: the registry names where each probe measures."""
    trees = dict(modules())
    assert "revbench.probes.clock" in set(named(trees["revbench.probes.declared.cost"]))
    assert "revbench.training.loop" in set(named(trees["revbench.training.declared"]))
    assert "revbench.models.networks" in set(named(trees["revbench.runner.server"]))


def test_no_two_files_import_each_other() -> None:
    """Neither by a detour, nor for types alone. (A declaration and the function that it names do stand side by side.)"""
    trees = dict(modules())
    arrows = {
        module: {
            other
            for name in imported(tree)
            if (other := name if name in trees else name.rpartition(".")[0]) in trees and other != module
        }
        for module, tree in trees.items()
        if module != "revbench"  # whose names are imported when they are asked for
    }
    while free := {module for module, others in arrows.items() if not others & arrows.keys()}:
        arrows = {module: others for module, others in arrows.items() if module not in free}
    assert not {module: others & arrows.keys() for module, others in arrows.items()}


def test_within_the_report_an_arrow_goes_only_downwards() -> None:
    """Sections are made of charts and tables, and know nothing of how they are rendered."""
    floors = {"build": 0, "sections": 1, "charts": 2, "render": 2}
    lowest = 3
    for module, tree in modules():
        own = module.split(".")
        if own[:2] != ["revbench", "report"] or len(own) < 3:
            continue
        for name in named(tree):
            other = name.split(".")
            if other[:2] == own[:2] and len(other) > 2 and other[2] != own[2]:
                above, below = floors.get(own[2], lowest), floors.get(other[2], lowest)
                assert above < below or above == below == lowest, (module, name)


def test_light_rooms_import_no_torch() -> None:
    """What a command line and a report read of a probe costs no import of torch."""
    program = (
        "import revbench.runner.registry, revbench.case.labels, revbench.tiers, revbench.launch.request, sys;"
        " print([name for name in ('torch', 'pandas', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

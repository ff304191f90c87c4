"""The rooms of docs/design.md import only in the directions drawn there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "inherited": set(),
    "interrupts": set(),
    "feasibility": set(),
    "machine": set(),
    "measurement": {"errors"},
    "quantities": set(),
    "rows": {"errors"},
    "space": {"errors", "measurement", "space_file"},
    "space_file": {"errors", "measurement", "space", "space_questions", "quantities"},
    "space_questions": {"measurement", "space", "space_file"},
    "propose": {"errors", "measurement", "space", "feasibility"},
    "deploy": {"errors", "inherited", "measurement", "space"},
    "modelserver": set(),
    "models": {"errors", "inherited", "rows", "workloads"},
    "workloads": {"errors", "models", "rows"},
    "load": {"errors", "inherited", "measurement", "quantities", "rows"},
    "meter": {"errors", "measurement"},
    "replay": {"errors", "measurement", "space", "propose", "store", "analysis"},
    "trial": {"deploy", "errors", "load", "measurement", "meter", "models", "space", "workloads"},
    "store": {"errors", "inherited", "measurement", "space", "feasibility"},
    "study": {"errors", "interrupts", "measurement", "propose", "space", "store"},
    "analysis": {"errors", "machine", "measurement", "store", "feasibility"},
    "export": {"analysis", "deploy", "errors", "measurement", "space", "store"},
}


def imported_rooms(file: Path) -> set[str]:
    """Rooms of tuner that a file imports anywhere, functions included."""
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            rooms |= {a.name.split(".")[1] for a in node.names if a.name.startswith("tuner.")}
        elif isinstance(node, ast.ImportFrom) and node.module == "tuner":
            rooms |= {a.name for a in node.names if not a.name.startswith("__")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tuner."):
            rooms.add(node.module.split(".")[1])  # type: ignore[union-attr]
    return rooms


def room_of(file: Path) -> str:
    return file.relative_to(ROOT / "tuner").parts[0].removesuffix(".py")


def is_program(file: Path) -> bool:
    """Programs talk to whoever started them; models are built in one whose lines are progress."""
    own = 'if __name__ == "__main__"' in file.read_text()
    return own or room_of(file) in ("cli", "modelserver", "models", "__main__")


FILES = sorted((ROOT / "tuner").rglob("*.py"))
BOUND = [f for f in FILES if room_of(f) not in ("__init__", "__main__", "cli")]
SILENT = [f for f in FILES if not is_program(f)]


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


@pytest.mark.parametrize("file", BOUND, ids=name_of)
def test_a_room_imports_only_what_the_design_allows(file: Path) -> None:
    room = room_of(file)
    beyond = imported_rooms(file) - MAY_IMPORT[room] - {room}
    assert not beyond, f"{room} may not import {sorted(beyond)}"


@pytest.mark.parametrize("file", SILENT, ids=name_of)
def test_only_the_command_line_and_programs_print_or_exit(file: Path) -> None:
    calls = [
        node.func.id
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    assert not {"print", "exit"} & set(calls)


@pytest.mark.parametrize("file", sorted((ROOT / "objectives").glob("*.py")), ids=lambda f: f.name)
def test_objectives_stay_thin(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= 200

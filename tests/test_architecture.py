"""The rooms table of docs/architecture.md is what the code does: rooms, imports, libraries, paths."""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "lauter"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
FREE = ("errors.py", "files.py")
"""Rooms that every other one may import."""


@dataclass(frozen=True)
class Room:
    """A row of the table; None stands for 'any'."""

    name: str
    may_import: frozenset[str] | None
    libraries: frozenset[str] | None


def read_rooms() -> list[Room]:
    section = PAGE.partition("\n## Rooms\n")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]

    def read_list(cell: str) -> frozenset[str] | None:
        names = frozenset(name.strip() for name in cell.split(",") if name.strip())
        return None if names == {"any"} else names

    return [Room(row[0].strip(" `"), read_list(row[2]), read_list(row[3])) for row in rows]


ROOMS = read_rooms()
NAMES = [room.name for room in ROOMS]


def room_of(module: str) -> str:
    """The room of a module path under lauter, such as ``noisy.filtering`` or ``run``."""
    top = module.partition(".")[0]
    return f"{top}/" if (SOURCE / top).is_dir() else f"{top}.py"


def imports_of(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, module, name) of every import in a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            yield from ((node.lineno, str(node.module), alias.name) for alias in node.names)


def files_of(room: str) -> list[Path]:
    return sorted((SOURCE / room).rglob("*.py")) if room.endswith("/") else [SOURCE / room]


def test_the_table_names_every_room_and_no_other() -> None:
    folders = {f"{path.name}/" for path in SOURCE.iterdir() if any(path.glob("*.py"))}
    modules = {path.name for path in SOURCE.glob("*.py")}
    assert len(set(NAMES)) == len(NAMES)
    assert set(NAMES) == folders | modules


@pytest.mark.parametrize("room", ROOMS, ids=NAMES)
def test_rooms_may_import_only_from_above(room: Room) -> None:
    above = set(NAMES[: NAMES.index(room.name)])
    assert {room_of(name) for name in room.may_import or ()} <= above


@pytest.mark.parametrize("room", ROOMS, ids=NAMES)
def test_a_room_imports_only_what_its_row_allows(room: Room) -> None:
    above = set(NAMES[: NAMES.index(room.name)])
    allowed = above if room.may_import is None else {room_of(name) for name in room.may_import}
    allowed |= {room.name, *FREE}
    offences = []
    for path in files_of(room.name):
        for line, module, name in imports_of(path):
            package, _, inner = module.partition(".")
            where = f"{path.relative_to(ROOT)}:{line}"
            if package == "lauter" and not inner:
                if name in ("", "__version__"):
                    continue
                inner = name
            if package == "lauter" and room_of(inner) not in allowed:
                offences.append(f"{where} imports {room_of(inner)}")
            library = package not in sys.stdlib_module_names and package != "lauter"
            if library and room.libraries is not None and package not in room.libraries:
                offences.append(f"{where} imports {package}")
    assert not offences, f"{room.name} may not:\n" + "\n".join(offences)


def test_lauter_itself_is_imported_for_its_version_only() -> None:
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.value.id != "lauter" or node.attr == "__version__", f"{path}:{node.lineno}"


def test_fabric_is_set_up_in_one_file() -> None:
    users = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        for _, module, _ in imports_of(path)
        if module.partition(".")[0] == "lightning_fabric"
    }
    assert users == {"training/runtime.py"}


def test_one_loop_steps_the_optimisers() -> None:
    steppers = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if re.search(r"optimizer\.step\(|\.backward\(", path.read_text(encoding="utf-8"))
    }
    # The yardstick is a loop as it is written elsewhere, to be measured against.
    assert steppers == {"training/loop.py", "bench/yardstick.py"}


def test_every_path_on_the_page_exists() -> None:
    paths = re.findall(r"`([\w./-]+\.(?:py|html|toml)|Makefile|[\w-]+/[\w/-]*)`", PAGE)
    assert len(paths) > 40
    missing = [path for path in paths if not (SOURCE / path).exists() and not (ROOT / path).exists()]
    assert [path for path in missing if path != "report.html"] == []

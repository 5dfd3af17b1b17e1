"""What ``import lauter`` gives, and that it gives it quickly."""

import importlib
import pkgutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

import lauter


def run_python(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=120, check=True, cwd=cwd
    )


def test_every_public_name_is_there_and_said() -> None:
    assert set(lauter.__all__) == {*lauter._PUBLIC, "__version__"}
    assert list(lauter.__all__) == sorted(lauter.__all__)
    for name in lauter.__all__:
        assert getattr(lauter, name) is not None
        assert name in dir(lauter)


def test_no_module_hides_a_public_name() -> None:
    """Importing ``lauter.x`` sets the attribute x of the package, whatever it was."""
    modules = {info.name for info in pkgutil.iter_modules(lauter.__path__)}
    assert not modules & set(lauter.__all__)
    for name in modules - {"__main__"}:
        importlib.import_module(f"lauter.{name}")
    assert not [name for name in lauter.__all__ if isinstance(getattr(lauter, name), ModuleType)]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'lauter' has no attribute 'fti'"):
        _ = lauter.fti
    assert not hasattr(lauter, "utils")


@pytest.mark.parametrize(
    "code", ["import lauter; lauter.__version__", "from lauter.__main__ import main; main(['--help'])"]
)
def test_torch_is_not_imported_before_it_is_needed(code: str) -> None:
    check = "; import sys; heavy = {'torch', 'numpy', 'pandas'} & set(sys.modules); assert not heavy, heavy"
    run_python("-W", "error", "-c", code + check)


def test_help_comes_quickly(tmp_path: Path) -> None:
    began = time.perf_counter()
    said = run_python("-m", "lauter", "--help", cwd=tmp_path).stdout
    assert time.perf_counter() - began < 2  # about 0.1 s; a machine under load is allowed for
    assert said.startswith("usage: lauter VERB ...")
    assert list(tmp_path.iterdir()) == []


def test_types_are_shipped() -> None:
    assert (Path(lauter.__path__[0]) / "py.typed").is_file()


def test_the_three_lines_of_the_readme(photos: Path, finished: object) -> None:
    data = lauter.open_dataset(photos)
    assert len(data) == 42
    model = lauter.load(finished.directory)  # type: ignore[attr-defined]
    table = model.predict(data)
    assert list(table.columns) == ["id", "class", "probability"]
    assert set(table["class"]) <= {"cat", "dog", "train"}
    assert table["probability"].between(1 / 3, 1).all()

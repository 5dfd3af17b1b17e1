"""The clock: what a command took from its start to its end, and its failures."""

from pathlib import Path

import pytest

from lauter.bench import clock
from lauter.errors import RunError

FAKE = """
import json, pathlib, sys, time
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
out.mkdir()
block = bytearray(200 * 2**20)
time.sleep(0.3)
stages = {"robust": {"seconds": 0.25, "images": 1}}
(out / "metrics.json").write_text(json.dumps({"cost": {"stages": stages}}))
"""


def replace_command(monkeypatch: pytest.MonkeyPatch, folder: Path, program: str) -> None:
    """Let ``python -m lauter`` run this program instead."""
    (folder / "lauter.py").write_text(program)
    monkeypatch.chdir(folder)


def test_seconds_and_memory_are_those_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_command(monkeypatch, tmp_path, FAKE)
    stale = tmp_path / "work" / "fit-quick"
    stale.mkdir(parents=True)
    records = clock.clock_fit("quick", tmp_path, tmp_path / "work")
    values = {record.metric: record.value for record in records}
    assert {(record.suite, record.data, record.method) for record in records} == {
        ("speed", "cifar10n-worst", "fit quick")
    }
    assert 0.3 <= values["seconds"] < 30
    assert 200 <= values["peak_mib"] < 400
    assert values["seconds_robust"] == 0.25


def test_a_command_that_fails_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_command(
        monkeypatch, tmp_path, 'import sys\nprint("first")\nprint("no such folder")\nsys.exit(2)\n'
    )
    with pytest.raises(RunError, match="exit code 2: no such folder"):
        clock.clock_fit("quick", tmp_path, tmp_path / "work")

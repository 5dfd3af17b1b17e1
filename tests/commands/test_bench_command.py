"""``lauter bench``: what a result file holds is not measured again, and nothing of it is lost."""

from pathlib import Path
from typing import Any

import pytest

from lauter.__main__ import main
from lauter.bench import way
from lauter.bench.records import Record, ResultFile


def make_record(method: str, seed: int, value: float = 0.5) -> Record:
    return Record("noisy", "ncifar10", method, seed, "balanced_accuracy_last", value)


def test_measured_methods_are_passed_by_and_their_records_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, work = tmp_path / "way.json", tmp_path / "work"
    ResultFile.start("earlier").append([make_record("lauter", 0)]).write(out)
    asked: list[tuple[str, int, list[str]]] = []

    def measure(
        name: str, seed: int, folders: Any, work: Path, config: Any, methods: Any, console: Any
    ) -> None:
        asked.append((name, seed, list(methods)))

    monkeypatch.setattr(way, "measure_way", measure)
    monkeypatch.setattr(way, "read_work", lambda work: [make_record("ce", 0, 0.25)])
    arguments = ["bench", "way", "--cifar10", "a", "--cifar100", "b", "--data", "[ncifar10]"]
    arguments += ["--methods", "[lauter,ce]", "--seeds", "[0,1]", "--out", str(out), "--work", str(work)]
    assert main(arguments) == 0
    assert asked == [("ncifar10", 0, ["ce"]), ("ncifar10", 1, ["lauter", "ce"])]
    found = {(r.method, r.seed): r.value for r in ResultFile.read(out).records}
    assert found == {("lauter", 0): 0.5, ("ce", 0): 0.25}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["way"], "needs --cifar10 and --cifar100"),
        (["way", "--cifar10", "a", "--cifar100", "b", "--data", "[mnist]"], "not 'mnist'"),
        (["everything"], "not 'everything'"),
    ],
)
def test_bad_words_end_with_a_message(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments, "--out", str(tmp_path / "out.json")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()

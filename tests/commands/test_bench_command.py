"""``lauter bench``: what a result file holds is not measured again, and nothing of it is lost."""

from pathlib import Path
from typing import Any

import pytest

from lauter.__main__ import main
from lauter.bench import growth, speed, way
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
        (["speed", "--sections", "[gpu]"], "not 'gpu'"),
        (["speed", "--sections", "[student]"], "needs --cifar10"),
        (["growth", "--data", "[many]"], "not 'many'"),
    ],
)
def test_bad_words_end_with_a_message(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments, "--out", str(tmp_path / "out.json")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()


def test_sections_of_speed_go_to_the_file_of_their_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def measure(names: list[str], request: speed.SpeedRequest, done: Any) -> None:
        asked.append((names, request.cifar10, request.against))
        done([Record("speed", "x", "student", 0, "images_per_second", 5.0)])
        done([Record("distill", "x", "bank", 0, "images_per_second", 6.0)])

    monkeypatch.setattr(speed, "measure_sections", measure)
    out = tmp_path / "speed.json"
    arguments = ["bench", "speed", "--sections", "[student,mimic]", "--cifar10", "c", "--against"]
    assert main([*arguments, "--out", str(out)]) == 0
    assert asked == [(["student", "mimic"], Path("c"), True)]
    assert [record.value for record in ResultFile.read(out).records] == [5.0]
    assert [record.value for record in ResultFile.read(tmp_path / "distill-speed.json").records] == [6.0]


def test_growth_is_kept_after_every_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(parts: list[str], sizes: list[int], work: Path, done: Any) -> None:
        assert (parts, sizes, work.name) == (["data"], [10_000, 20_000], "growth")
        for count in sizes:
            done([Record("speed", growth.name_size(count), "data", 0, "seconds", count / 100)])

    monkeypatch.setattr(growth, "measure_growth", measure)
    out = tmp_path / "growth.json"
    arguments = ["bench", "growth", "--sections", "[data]", "--data", "[10k,20k]"]
    assert main([*arguments, "--out", str(out)]) == 0
    found = {(record.data, record.metric): record.value for record in ResultFile.read(out).records}
    assert found["10,000 images", "seconds"] == 100
    assert found["20,000 images", "seconds"] == 200
    assert found[growth.ALL, "exponent_seconds"] == pytest.approx(1)  # over what the file holds, all of it

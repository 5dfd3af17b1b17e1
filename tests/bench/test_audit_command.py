"""``lauter bench audit``: what it is asked for, what it leaves, what it refuses before anything begins."""

from pathlib import Path
from typing import Any

import pytest

from lauter.__main__ import main
from lauter.bench import audit, audit_scale
from lauter.bench.audit_data import Folders
from lauter.bench.records import Record, ResultFile


def test_every_set_and_seed_goes_into_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def measure(name: str, seed: int, *rest: Any) -> list[Record]:
        asked.append((name, seed, *rest))
        return [Record("audit", name, "lauter", seed, "f1", 0.5 + seed / 10)]

    monkeypatch.setattr(audit, "measure_audit", measure)
    out = tmp_path / "audit.json"
    words = ["bench", "audit", "--cifar10", "ten", "--data", "[digits-clean,cifar10n-worst]"]
    words += ["--seeds", "[0,2]", "--methods", "[lauter,datalab]", "--preset", "standard", "--threads", "1"]
    assert main([*words, "--out", str(out), "--work", str(tmp_path / "work")]) == 0
    units = [(name, seed) for name in ("digits-clean", "cifar10n-worst") for seed in (0, 2)]
    assert [(name, seed) for name, seed, *_ in asked] == units
    folders, work, runtime, config, methods, evidence, features, _console = asked[0][2:]
    assert folders == Folders(cifar10=Path("ten"))
    assert work == tmp_path / "work"
    assert runtime.threads == 1
    assert config.pretrain.epochs == 60
    assert (methods, evidence, features) == (["lauter", "datalab"], "features", "")
    found = {(record.data, record.seed): record.value for record in ResultFile.read(out).records}
    assert found == {unit: 0.5 + unit[1] / 10 for unit in units}


def test_sizes_are_clocked_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def clock(name: str, work: Path) -> list[Record]:
        assert work == tmp_path / "work" / "audit-scale"
        return [Record("audit", name, "lauter", 0, "seconds", 3.0)]

    monkeypatch.setattr(audit_scale, "measure_audit_scale", clock)
    out = tmp_path / "scale.json"
    words = ["bench", "audit-scale", "--data", "[100k,50k]", "--work", str(tmp_path / "work")]
    assert main([*words, "--out", str(out)]) == 0
    assert [record.data for record in ResultFile.read(out).records] == ["100k", "50k"]
    assert main(["bench", "audit-scale", "--data", "[2k]", "--out", str(out)]) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "[mnist]"], "not 'mnist'"),
        (["--methods", "[guess]"], "not 'guess'"),
        (["--data", "[digits-clean,ncifar10]", "--cifar10", "ten"], "needs --cifar100"),
        (["--data", "[digits-clean]", "--evidence", "dreams"], "not 'dreams'"),
        (["--data", "[digits-clean]", "--evidence", "networks", "--features", "x"], "leave them out"),
        (["--data", "[digits-clean]", "--preset", "endless"], "not 'endless'"),
    ],
)
def test_bad_words_end_before_anything_is_measured(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(audit, "measure_audit", refuse)
    assert main(["bench", "audit", *words, "--out", str(tmp_path / "out.json")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.json").exists()

"""The run directory: begun once, continued by the same settings alone."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import lauter
from lauter.errors import BankError, ConfigError, DataError, LauterError, ModelError, RunError
from lauter.run import RunDirectory, check_directory, open_run, undo_if_refused

SETTINGS: dict[str, Any] = {
    "data": {"spec": "/photos", "split": None},
    "fingerprint": "ab12",
    "fit": {"seed": 0, "robust": {"epochs": 3, "milestones": (0.5, 0.75)}, "student": "Übergröße"},
}


def test_a_new_run_writes_its_settings_and_nothing_else(tmp_path: Path) -> None:
    run = open_run(tmp_path / "deep" / "run", SETTINGS, resume=False)
    assert [entry.name for entry in run.path.iterdir()] == ["config.yaml"]
    content = run.read_config()
    assert content["version"] == lauter.__version__
    assert content["fit"]["robust"] == {"epochs": 3, "milestones": [0.5, 0.75]}
    assert "Übergröße" in run.config.read_text(encoding="utf-8")


@pytest.mark.parametrize("resume", [False, True])
def test_an_empty_directory_is_free(tmp_path: Path, resume: bool) -> None:
    (tmp_path / ".DS_Store").write_bytes(b"")
    assert check_directory(tmp_path, resume=resume) is False
    assert check_directory(tmp_path / "new", resume=resume) is False
    open_run(tmp_path, SETTINGS, resume=resume)
    assert check_directory(tmp_path, resume=True) is True


@pytest.mark.parametrize("resume", [False, True])
def test_what_is_no_run_is_left_alone(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(RunError, match="is not empty and holds no run; choose another --out"):
        open_run(tmp_path, SETTINGS, resume=resume)
    with pytest.raises(RunError, match=r"thesis\.tex is a file; choose a directory with --out"):
        open_run(tmp_path / "thesis.tex", SETTINGS, resume=resume)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]
    assert (tmp_path / "thesis.tex").read_text() == "all of it"


def test_a_run_is_not_begun_twice(tmp_path: Path) -> None:
    open_run(tmp_path, SETTINGS, resume=False)
    before = (tmp_path / "config.yaml").read_bytes()
    with pytest.raises(RunError, match="holds a run; choose another --out, or continue that run with --res"):
        open_run(tmp_path, SETTINGS, resume=False)
    assert (tmp_path / "config.yaml").read_bytes() == before


def test_the_same_settings_continue(tmp_path: Path) -> None:
    open_run(tmp_path, SETTINGS, resume=False)
    run = open_run(tmp_path, SETTINGS, resume=True)
    assert run == RunDirectory(tmp_path)


DIFFERENT = [
    ({"fingerprint": "cd34"}, "fingerprint: 'ab12' there, 'cd34' here"),
    ({"fit": {**SETTINGS["fit"], "seed": 1}}, r"fit\.seed: 0 there, 1 here"),
    ({"fit": {"seed": 0, "student": "Übergröße"}}, r"fit\.robust: \{.*\} there, None here"),
    ({"data": {"spec": "/other", "split": None}}, r"data\.spec: '/photos' there, '/other' here"),
    ({"teacher": "new"}, "teacher: None there, 'new' here"),
]


@pytest.mark.parametrize(("changes", "message"), DIFFERENT)
def test_other_settings_are_refused_by_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    open_run(tmp_path, SETTINGS, resume=False)
    before = (tmp_path / "config.yaml").read_bytes()
    with pytest.raises(RunError, match=f"holds a run with other settings .*{message}"):
        open_run(tmp_path, {**SETTINGS, **changes}, resume=True)
    assert (tmp_path / "config.yaml").read_bytes() == before


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_run(tmp_path, SETTINGS, resume=False)
    monkeypatch.setattr("lauter.run.__version__", "99.0")
    with pytest.raises(RunError, match=r"version: '[\d.]+' there, '99\.0' here"):
        open_run(tmp_path, SETTINGS, resume=True)


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    open_run(tmp_path, SETTINGS, resume=False)
    results = ("config", "labels", "metrics", "report", "teacher", "student")
    suffixes = (".yaml", ".parquet", ".json", ".html", ".safetensors", ".safetensors")
    for name, suffix in zip(results, suffixes, strict=True):
        (tmp_path / f".{name}-x8k2{suffix}").write_bytes(b"half")
    (tmp_path / ".notes-mine.txt").write_text("mine")
    open_run(tmp_path, SETTINGS, resume=True)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [".notes-mine.txt", "config.yaml"]


def test_a_first_write_that_was_killed_does_not_block_the_directory(tmp_path: Path) -> None:
    (tmp_path / ".config-x8k2.yaml").write_text("vers")
    open_run(tmp_path, SETTINGS, resume=True)
    assert RunDirectory(tmp_path).read_config()["fingerprint"] == "ab12"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no run directory: it has no config.yaml"),
        (b"a: [", r"config\.yaml cannot be read: while parsing"),
        (b"\xff\xff", r"config\.yaml cannot be read"),
        (b"- 1", r"config\.yaml holds no settings"),
    ],
)
def test_a_damaged_config_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(RunError, match=message) as caught:
        RunDirectory(tmp_path).read_config()
    assert "\n" not in str(caught.value)


def test_the_config_is_plain_yaml(tmp_path: Path) -> None:
    run = open_run(tmp_path, SETTINGS, resume=False)
    assert list(yaml.safe_load(run.config.read_text(encoding="utf-8"))) == ["version", *SETTINGS]


def test_files_of_a_run_have_the_names_that_are_documented(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    paths = (run.config, run.checkpoints, run.labels, run.metrics, run.teacher, run.student, run.onnx)
    assert [path.name for path in (*paths, run.report)] == [
        "config.yaml",
        "checkpoints",
        "labels.parquet",
        "metrics.json",
        "teacher.safetensors",
        "student.safetensors",
        "student.onnx",
        "report.html",
    ]


@pytest.mark.parametrize("error", [BankError, ConfigError, DataError, ModelError])
def test_a_run_that_was_refused_leaves_its_directory_free(tmp_path: Path, error: type[LauterError]) -> None:
    run = open_run(tmp_path / "run", {"fit": {}}, resume=False)
    run.checkpoints.mkdir()
    (run.checkpoints / "distill.source.json").write_text("{}")
    with pytest.raises(error, match="refused"), undo_if_refused(run):
        raise error("refused")
    assert not run.path.exists()


def test_what_was_trained_or_lies_there_is_kept(tmp_path: Path) -> None:
    for name in ("checkpoints/robust.pt", "bank/manifest.json"):
        run = open_run(tmp_path / name.partition("/")[0] / "run", {"fit": {}}, resume=False)
        (run.path / name).parent.mkdir(exist_ok=True)
        (run.path / name).write_text("much work")
        with pytest.raises(DataError), undo_if_refused(run):
            raise DataError("refused")
        assert run.config.exists()
        assert (run.path / name).exists()
    run = open_run(tmp_path / "interrupted", {"fit": {}}, resume=False)
    with pytest.raises(RunError), undo_if_refused(run):
        raise RunError("the disk is full")
    assert run.config.exists()

"""``lauter distill --multi-label``: one flag opens the way, and class folders never meet the others."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lauter.__main__ import main
from lauter.commands.multilabel import choose_test, is_asked_for
from lauter.files import read_json


def write_squares(root: Path, count: int = 40) -> Path:
    rng = np.random.default_rng(0)
    root.mkdir()
    lines = ["image,labels,split"]
    for number in range(count):
        pixels = rng.integers(80, 120, (16, 16, 3), dtype=np.uint8)
        names = [name for name in ("red", "green") if rng.random() < 0.5]
        for name in names:
            top, left = rng.integers(0, 10, 2)
            pixels[top : top + 6, left : left + 6, ("red", "green").index(name)] = 255
        Image.fromarray(pixels).save(root / f"{number}.png")
        split = "test" if number % 4 == 0 else "train"
        lines.append(f"{number}.png,{'|'.join(names) or '|'},{split}")
    (root / "squares.csv").write_text("\n".join(lines))
    return root / "squares.csv"


FLAGS = [
    *("--student", "resnet8", "--distill.epochs", "1", "--distill.embedding-epochs", "1"),
    *("--distill.batch-size", "16", "--holdout", "0.2", "--augment", "none"),
    *("--runtime.threads", "1", "--runtime.workers", "0", "--runtime.device", "cpu"),
]


def test_a_teacher_and_its_student(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lauter.results.can_export_onnx", lambda: False)  # slow, and tested elsewhere
    table = str(write_squares(tmp_path / "squares"))
    assert main(["distill", table, "--multi-label", "--out", "first", *FLAGS]) == 0
    said = capsys.readouterr().out
    assert "squares: 30 images, 2 classes" in said
    assert "10 test images" in said
    assert "mean average precision" in said
    assert main(["distill", table, "--multi-label", "--teacher", "first", "--out", "second", *FLAGS]) == 0
    capsys.readouterr()
    metrics = read_json(tmp_path / "second" / "metrics.json")
    assert metrics["student"]["scored_on"] == "test"
    assert set(metrics["cost"]["stages"]) == {"distill-embedding", "distill"}
    assert main(["predict", "second", "squares/0.png"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "id,class,probability"
    assert [line.split(",")[1] for line in lines[1:]] == ["green", "red"]
    assert main(["predict", "second", "squares/0.png", "--out", "told.csv"]) == 0
    assert capsys.readouterr().out == "told.csv: 1 images\n"


def test_its_presets_are_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["distill", "--multi-label", "--help"])
    said = capsys.readouterr().out
    assert "--separator" in said
    assert "(default: 0.01)" in said
    with pytest.raises(SystemExit):
        main(["distill", "--help"])
    said = capsys.readouterr().out
    assert "--multi-label" in said
    assert "--separator" not in said


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["data", "--multi-label"], True),
        (["data", "--multi_label=true", "--out", "x"], True),
        (["--multi-label", "true", "data"], True),
        (["--multi-label", "false", "data"], False),
        (["data", "--no-multi-label"], False),
        (["data"], False),
    ],
)
def test_the_switch(words: list[str], asked: bool) -> None:
    assert is_asked_for(words) == asked


def test_which_test_set_is_taken(tmp_path: Path) -> None:
    table = str(write_squares(tmp_path / "squares", 4))
    assert choose_test(table, None, None, None) == (table, "test")
    assert choose_test(table, "test", None, None) == (None, None)
    assert choose_test(table, None, None, "train") == (table, "train")
    (tmp_path / "other.csv").write_text("image,labels\n")
    other = str(tmp_path / "other.csv")
    assert choose_test(table, None, other, None) == (other, None)
    assert choose_test(other, None, None, None) == (None, None)


def test_bad_words_end_with_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], photos: Path
) -> None:
    out = ["--out", str(tmp_path / "run")]
    assert main(["distill", str(photos), "--multi-label", *out]) == 2
    assert "for class folders leave out --multi-label" in capsys.readouterr().err
    assert main(["distill", str(photos), "--separator", "|", *out]) == 2
    assert "there is no flag --separator" in capsys.readouterr().err

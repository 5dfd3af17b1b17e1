"""Flags: generated from the settings, typed with dashes, wrong ones named."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lauter.commands import flags
from lauter.config import FitConfig, load_preset, to_plain
from lauter.data.dataset import ImageFault
from lauter.errors import ConfigError, LauterError, RunError


def parse(words: Sequence[str]) -> tuple[Any, FitConfig]:
    parser = flags.make_parser("fit", "Fit.", "DATA [flags]")
    flags.add_data_flags(parser)
    flags.add_run_flags(parser)
    return flags.parse_run(parser, words)


def flatten(plain: dict[str, Any], where: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in plain.items():
        inner = flatten(value, f"{where}{name}.") if isinstance(value, dict) else {where + name: value}
        found |= inner
    return found


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no lauter-run is in the way."""
    monkeypatch.chdir(tmp_path)


def test_without_flags_the_standard_preset_counts() -> None:
    arguments, config = parse(["photos"])
    assert config == load_preset("standard")
    assert (arguments.data, arguments.out, arguments.resume) == ("photos", "lauter-run", False)


@pytest.mark.parametrize("preset", ["quick", "thorough"])
def test_a_preset_fills_in_and_flags_win(preset: str) -> None:
    assert parse(["photos", "--preset", preset])[1] == load_preset(preset)
    config = parse([f"--preset={preset}", "photos", "--robust.epochs", "7"])[1]
    robust = dataclasses.replace(load_preset(preset).robust, epochs=7)
    assert config == dataclasses.replace(load_preset(preset), robust=robust)


def test_every_setting_is_a_flag_with_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    settings = flatten(to_plain(FitConfig()))
    with pytest.raises(SystemExit):
        parse(["--help"])
    said = capsys.readouterr().out
    values, on, off = ["photos"], ["photos"], ["photos"]
    for name, value in settings.items():
        flag = name.replace("_", "-")
        assert f"  --{flag}" in said
        if isinstance(value, bool):
            assert f"  --{flag}, --no-{flag}\n" in said
            on.append(f"--{flag}")
            off.append(f"--no-{flag}")
        else:
            values.append(f"--{flag}={'null' if value is None else value}")
    # Every help text is there: the first words of the docstrings stand beside the flags.
    assert "share of the labelled images that is never trained on" in " ".join(said.split())
    assert "robust.optimizer: how the weights move" in said

    assert parse([*values, "--preset", "thorough"])[1] == FitConfig()  # typed out, all of it is the defaults
    off_config = flatten(to_plain(parse(off)[1]))
    assert {off_config[name] for name, value in settings.items() if isinstance(value, bool)} == {False}
    on_config = flatten(to_plain(parse(on)[1]))
    assert {on_config[name] for name, value in settings.items() if isinstance(value, bool)} == {True}


def test_flags_say_the_same_as_python(micro_flags: list[str], micro_config: FitConfig) -> None:
    assert parse(["photos", *micro_flags])[1] == micro_config
    assert parse([*micro_flags, "photos"])[1] == micro_config


def test_a_yaml_file_says_the_same_as_flags(
    micro_flags: list[str], micro_config: FitConfig, tmp_path: Path
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("student: resnet14\nrobust: {epochs: 5, judge: {correction: {enabled: false}}}\n")
    by_file = parse(["photos", "--config", str(path), "--preset", "quick"])[1]
    words = ["photos", "--preset=quick", "--student", "resnet14", "--robust.epochs=5"]
    by_flags = parse([*words, "--no-robust.judge.correction.enabled"])[1]
    assert by_file == by_flags
    assert parse(["photos", f"--config={path}", "--robust.epochs", "9"])[1].robust.epochs == 9
    whole = tmp_path / "config.yaml"
    import yaml

    whole.write_text(yaml.safe_dump({"version": "0", "fit": to_plain(micro_config)}))
    assert parse(["photos", "--config", str(whole), "--preset", "thorough"])[1] == micro_config


@pytest.mark.parametrize(
    ("words", "resume", "baseline"),
    [
        (["--resume", "photos"], True, True),
        (["photos", "--resume", "--no-baseline"], True, False),
        (["photos", "--resume=true", "--baseline", "false"], True, False),
        (["photos", "--no-resume", "--baseline"], False, True),
        (["--no-baseline", "--", "photos"], False, False),
    ],
)
def test_switches(words: list[str], resume: bool, baseline: bool) -> None:
    arguments, config = parse(words)
    assert (arguments.data, arguments.resume, config.baseline) == ("photos", resume, baseline)


def test_columns_and_parts() -> None:
    line = "t.csv --label-column a_b --truth-column=c-d --image-column f --id-column i --size 50 --split val"
    arguments, _ = parse([*line.split(), "--test", "t2.csv", "--min-per-class=0"])
    columns = (arguments.label_column, arguments.truth_column, arguments.image_column, arguments.id_column)
    assert columns == ("a_b", "c-d", "f", "i")
    assert (arguments.size, arguments.split, arguments.test) == (50, "val", "t2.csv")
    assert arguments.min_per_class == 0


WRONG = [
    ("", r"DATA is missing \(see lauter fit --help\)"),
    ("photos more", r"'more' is one word too many"),
    ("photos --robst.epochs 3", r"there is no flag --robst\.epochs; near it: --robust\.epochs"),
    ("photos --robust.epoch 3", r"there is no flag --robust\.epoch; near it: --robust\.epochs"),
    ("photos --label_colum x", r"there is no flag --label-colum; near it: --label-column"),
    ("photos --zzz", r"there is no flag --zzz \(see"),
    ("photos --out", "--out needs a value"),
    ("photos --robust.epochs many", r"--robust\.epochs must be a whole number, not 'many'"),
    ("photos --robust.epochs 2.5", r"--robust\.epochs must be a whole number, not '2\.5'"),
    ("photos --robust.batch-size x", r"--robust\.batch-size must be a whole number, not 'x'"),
    ("photos --holdout some", r"--holdout must be a number, not 'some'"),
    ("photos --size x", r"--size must be a whole number, not 'x'"),
    ("photos --augment flip", r"--augment must be none, digits or objects, not 'flip'"),
    ("photos --baseline=maybe", r"--baseline must be true or false, not 'maybe'"),
    ("photos --distill.optimizer.milestones 3", r"milestones must be a list of numbers, not '3'"),
    ("photos --seed -1", "seed must be 0 or more, not -1"),
    ("photos --holdout 0.9", "holdout must be a share of the images"),
    ("photos --robust.optimizer.lr 0", r"^robust\.optimizer: lr must be above 0, not 0"),
    ("photos --preset fast", "preset must be one of quick, standard, thorough, not 'fast'"),
    ("photos --config gone.yaml", r"gone\.yaml cannot be read: No such file"),
]


@pytest.mark.parametrize(("line", "message"), WRONG, ids=[line for line, _ in WRONG])
def test_wrong_words_are_named(line: str, message: str) -> None:
    with pytest.raises(LauterError, match=message) as caught:
        parse(line.split())
    assert "\n" not in str(caught.value)


def test_a_directory_in_the_way_is_said_with_the_words(tmp_path: Path) -> None:
    (tmp_path / "lauter-run").mkdir()
    (tmp_path / "lauter-run" / "notes").write_text("mine")
    with pytest.raises(RunError, match="lauter-run is not empty and holds no run"):
        parse(["photos"])
    parse(["photos", "--out", "elsewhere"])


def test_faults_are_told_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    faults = [
        ImageFault("a.jpg", "truncated", "12 bytes short", True),
        ImageFault("b.jpg", "rotated", "converted", False),
        ImageFault("b.jpg", "cmyk", "converted", False),
    ]
    flags.tell_faults(faults)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "left out    a.jpg: truncated (12 bytes short)\n"
        "changed     1 of the images (turned, or converted to 8-bit RGB)\n"
    )
    flags.tell_faults([])
    assert capsys.readouterr().err == ""


def test_a_file_is_not_overwritten(tmp_path: Path) -> None:
    assert flags.require_free(tmp_path / "new.csv") == tmp_path / "new.csv"
    (tmp_path / "old.csv").write_text("mine")
    with pytest.raises(ConfigError, match=r"old\.csv exists already; choose another --out"):
        flags.require_free(tmp_path / "old.csv")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], False),
        (["--runtime.compile"], True),
        (["--runtime.compile", "auto"], "auto"),
        (["--runtime.compile=auto"], "auto"),
        (["--no-runtime.compile"], False),
    ],
)
def test_a_switch_may_have_a_third_word(words: list[str], wanted: object) -> None:
    parser = flags.make_parser("fit", "", "")
    flags.add_setting_flags(parser)
    assert flags.parse_settings(parser, words)[1].runtime.compile == wanted

"""Settings: the same from Python, YAML and presets; what is wrong is named with its place."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from lauter.config import FitConfig, describe_type, from_plain, load_preset, read_config, to_plain
from lauter.errors import ConfigError
from lauter.pipeline import FitResult

PRESETS = ("quick", "standard", "thorough")


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_survives_plain_values_and_yaml(name: str) -> None:
    config = dataclasses.replace(load_preset(name), student="timm:resnet18", seed=7, holdout=0.15)
    plain = to_plain(config)
    assert json.loads(json.dumps(plain)) == plain
    assert from_plain(FitConfig, yaml.safe_load(yaml.safe_dump(plain))) == config


def test_presets_fill_in_lengths_and_nothing_else() -> None:
    defaults = to_plain(FitConfig())
    lengths = [(name, "epochs") for name in ("pretrain", "robust", "distill", "supervised")]
    sums = []
    for preset in PRESETS:
        plain = to_plain(load_preset(preset))
        sums.append(sum(plain[group][name] for group, name in lengths))
        for group, name in lengths:
            plain[group][name] = defaults[group][name]
        assert plain == defaults
    assert sums == sorted(set(sums))


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ConfigError, match="preset must be one of quick, standard, thorough, not 'fast'"):
        load_preset("fast")


def test_every_setting_is_documented() -> None:
    """The attribute docstrings are the help texts."""
    import docstring_parser

    def check(kind: Any) -> int:
        told = {entry.arg_name for entry in docstring_parser.parse(kind.__doc__).params}
        fields = {entry.name: entry for entry in dataclasses.fields(kind)}
        assert told == set(fields), kind.__name__
        values = [getattr(kind(), name) for name in fields]
        return len(fields) + sum(check(type(v)) for v in values if dataclasses.is_dataclass(v))

    assert check(FitConfig) > 60


WRONG = [
    ({"epochs": 3}, r"unknown setting epochs; known here: augment, baseline"),
    ({"robust": {"epoch": 3}}, r"unknown setting robust\.epoch; known here: .*epochs"),
    ({3: 4}, "unknown setting 3; known here"),
    ({"robust": {"epochs": "many"}}, r"robust\.epochs must be a whole number, not 'many'"),
    ({"robust": {"epochs": 2.5}}, r"robust\.epochs must be a whole number, not 2\.5"),
    ({"robust": {"epochs": True}}, r"robust\.epochs must be a whole number, not True"),
    ({"robust": {"epochs": 0}}, "robust training needs epochs and batch_size of 1 or more, not 0"),
    ({"robust": 3}, r"robust must be a group of settings \(batch_size, .*prior_correction\), not 3"),
    ({"robust": None}, "robust must be a group of settings .*, not None"),
    ({"seed": None}, "seed must be a whole number, not None"),
    ({"seed": -1}, "seed must be 0 or more, not -1"),
    ({"holdout": "half"}, "holdout must be a number, not 'half'"),
    ({"holdout": True}, "holdout must be a number, not True"),
    ({"holdout": 0.5}, r"holdout must be a share of the images in \(0, 0\.5\), not 0\.5"),
    ({"holdout": 0}, r"holdout must be a share of the images in \(0, 0\.5\), not 0"),
    ({"baseline": "no"}, "baseline must be true or false, not 'no'"),
    ({"baseline": 0}, "baseline must be true or false, not 0"),
    ({"student": 18}, "student must be text, not 18"),
    ({"augment": "flip"}, "augment must be none, digits or objects, not 'flip'"),
    ({"augment": ["none"]}, r"augment must be none, digits or objects, not \['none'\]"),
    ({"keep": "best"}, "keep must be selected or last, not 'best'"),
    ({"image_size": 4}, r"image_size must be 8 to 1024 pixels \(0: automatic\), not 4"),
    ({"teacher_weights": "a.pt", "teacher_pretrained": True}, "contradict each other; choose one"),
    ({"distill": {"optimizer": {"lr": -1}}}, r"^distill\.optimizer: lr must be above 0, not -1"),
    ({"distill": {"optimizer": {"milestones": 0.5}}}, r"milestones must be a list of numbers, not 0\.5"),
    ({"distill": {"optimizer": {"milestones": ["x"]}}}, r"optimizer\.milestones must be a number, not 'x'"),
    ({"runtime": {"precision": 16}}, "precision must be auto, 32 or bf16, not 16"),
]


@pytest.mark.parametrize(("plain", "message"), WRONG, ids=[str(plain) for plain, _ in WRONG])
def test_wrong_settings_are_named_with_their_place(plain: dict[Any, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_plain(FitConfig, plain)


def test_what_yaml_reads_otherwise_is_understood() -> None:
    text = "runtime: {precision: 32}\nholdout: 2e-1\nrobust: {optimizer: {lr: 1, milestones: [1e-1, 0.5]}}"
    config = from_plain(FitConfig, yaml.safe_load(text))
    assert config.runtime.precision == "32"
    assert config.holdout == 0.2
    assert config.robust.optimizer.lr == 1.0
    assert isinstance(config.robust.optimizer.lr, float)
    assert config.robust.optimizer.milestones == (0.1, 0.5)


def test_absent_settings_come_from_the_base() -> None:
    base = load_preset("thorough")
    config = from_plain(FitConfig, {"robust": {"optimizer": {"lr": 0.2}}}, base=base)
    assert config.robust.optimizer.lr == 0.2
    assert config.robust.epochs == base.robust.epochs
    assert dataclasses.replace(config, robust=base.robust) == base
    assert from_plain(FitConfig, {}) == FitConfig()


def test_a_file_is_read_on_top_of_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("seed: 4\ndistill:\n  epochs: 3\n")
    config = read_config(path)
    standard = load_preset("standard")
    distill = dataclasses.replace(standard.distill, epochs=3)
    assert config == dataclasses.replace(standard, seed=4, distill=distill)
    quick = load_preset("quick")
    assert read_config(path, quick).robust == quick.robust


def test_a_runs_config_is_read_whatever_the_preset(finished: FitResult) -> None:
    path = finished.directory / "config.yaml"
    config = read_config(path, load_preset("thorough"))
    assert config == read_config(path)
    assert (config.student, config.image_size, config.robust.epochs) == ("resnet8", 16, 2)


FILES = [
    (b"seed: -3", r"settings\.yaml: seed must be 0 or more, not -3"),
    (b"sead: 3", r"settings\.yaml: unknown setting sead"),
    (b"[1, 2]", r"settings\.yaml holds no settings: a YAML mapping was expected"),
    (b"", r"settings\.yaml holds no settings"),
    (b"fit: 3", r"settings\.yaml: fit must be a group of settings, not 3"),
    (b"seed: [", r"settings\.yaml is no YAML: while parsing"),
    (b"\xff\xfe\x00", r"settings\.yaml is no YAML"),
    (b"seed: !!python/object/apply:os.getpid []", r"settings\.yaml is no YAML: could not determine"),
]


@pytest.mark.parametrize(("content", "message"), FILES, ids=[str(content) for content, _ in FILES])
def test_a_wrong_file_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_config(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml cannot be read: No such file or directory"):
        read_config(tmp_path / "gone.yaml")


def test_types_in_words() -> None:
    assert describe_type(Literal["a", "b", "c"]) == "a, b or c"
    assert describe_type(Literal["a"]) == "a"
    assert describe_type(int | None) == "a whole number"
    assert describe_type(tuple[float, ...]) == describe_type(list[int]) == "a list of numbers"
    assert describe_type(list[str]) == "a list"
    assert [describe_type(kind) for kind in (bool, float, str)] == ["true or false", "a number", "text"]

"""The settings of the whole way, as frozen dataclasses; presets only fill them in."""

import dataclasses
import types
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from lauter.distillation.mimic import MimicConfig
from lauter.errors import ConfigError
from lauter.noisy.pretrain import PretrainConfig
from lauter.noisy.robust import RobustConfig
from lauter.noisy.warmup import WarmupConfig
from lauter.training.runtime import RuntimeConfig
from lauter.training.supervised import SupervisedConfig

Preset = Literal["quick", "standard", "thorough"]


@dataclass(frozen=True)
class FitConfig:
    """The whole way from doubtful labels to a small model.

    Attributes:
        student: name of the small network (see ``lauter.models``); chosen by image size where empty.
        teacher: name of the network that is trained robustly and then mimicked; by image size where empty.
        teacher_weights: a local file the teacher's backbone starts from; pretraining is then left out.
        teacher_pretrained: whether the teacher's backbone starts from the weights that timm or torchvision
            offer; pretraining is then left out.
        image_size: side of the pictures in pixels; 0 takes the student's, or the data's for zoo networks.
        augment: none, digits (no flips) or objects.
        holdout: share of the labelled images that is never trained on and selects the epoch.
        keep: which epoch's weights are kept: selected (by the noisy hold-out) or last.
        baseline: whether the same student is also trained by plain cross-entropy on the given labels.
        seed: of everything drawn.
        pretrain: self-supervised pretraining of the teacher.
        warmup: its head alone, or what else comes before labels are judged.
        robust: the teacher on kept and corrected labels.
        distill: the student.
        supervised: the baseline; its epochs are set so that it sees as many images as the student.
        runtime: device, precision, threads.
    """

    student: str = ""
    teacher: str = ""
    teacher_weights: str = ""
    teacher_pretrained: bool = False
    image_size: int = 0
    augment: Literal["none", "digits", "objects"] = "objects"
    holdout: float = 0.1
    keep: Literal["selected", "last"] = "last"
    baseline: bool = True
    seed: int = 0
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    warmup: WarmupConfig = field(default_factory=WarmupConfig)
    robust: RobustConfig = field(default_factory=RobustConfig)
    distill: MimicConfig = field(default_factory=MimicConfig)
    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    def __post_init__(self) -> None:
        if self.augment not in ("none", "digits", "objects"):
            raise ConfigError(f"augment must be none, digits or objects, not {self.augment!r}")
        if self.keep not in ("selected", "last"):
            raise ConfigError(f"keep must be selected or last, not {self.keep!r}")
        if not 0 < self.holdout < 0.5:
            raise ConfigError(f"holdout must be a share of the images in (0, 0.5), not {self.holdout}")
        if self.image_size and not 8 <= self.image_size <= 1024:
            raise ConfigError(f"image_size must be 8 to 1024 pixels (0: automatic), not {self.image_size}")
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, not {self.seed}")
        if self.teacher_weights and self.teacher_pretrained:
            raise ConfigError("teacher_weights and teacher_pretrained contradict each other; choose one")


def load_preset(name: str) -> FitConfig:
    """The settings of a preset.

    Args:
        name: quick (10,000 images of 32 x 32 in under 15 minutes on 2 cores), standard (under 30) or
            thorough (the lengths that papers train for).

    Raises:
        ConfigError: there is no such preset.
    """
    lengths = {"quick": (25, 18, 20), "standard": (60, 30, 40), "thorough": (500, 200, 240)}
    if name not in lengths:
        raise ConfigError(f"preset must be one of {', '.join(lengths)}, not {name!r}")
    pretrain, robust, distill = lengths[name]
    config = FitConfig()
    return dataclasses.replace(
        config,
        pretrain=dataclasses.replace(config.pretrain, epochs=pretrain),
        robust=dataclasses.replace(config.robust, epochs=robust),
        distill=dataclasses.replace(config.distill, epochs=distill),
        supervised=dataclasses.replace(config.supervised, epochs=distill),
    )


def to_plain(value: Any) -> Any:
    """A config as plain dicts, lists and scalars, for YAML and JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {entry.name: to_plain(getattr(value, entry.name)) for entry in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(name): to_plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value


T = TypeVar("T")


def from_plain(kind: type[T], plain: dict[str, Any], where: str = "", base: T | None = None) -> T:
    """A config from plain dicts, as :func:`to_plain` gave or a person wrote.

    Args:
        kind: the config's class.
        plain: settings by name.
        where: the place of these settings in a larger config, for messages: empty, or ending in a dot.
        base: where settings that ``plain`` leaves out come from; the defaults where None.

    Raises:
        ConfigError: a setting is unknown, of another type or out of its range; the message names it with
            its place.
    """
    base = kind() if base is None else base
    kinds = get_type_hints(kind)
    if unknown := sorted(str(name) for name in set(plain) - set(kinds)):
        raise ConfigError(f"unknown setting {where}{unknown[0]}; known here: {', '.join(sorted(kinds))}")
    values: dict[str, Any] = {}
    for name, value in plain.items():
        place = f"{where}{name}"
        if not dataclasses.is_dataclass(kinds[name]):
            values[name] = _read_value(place, kinds[name], value)
        elif isinstance(value, dict):
            values[name] = from_plain(kinds[name], value, f"{place}.", getattr(base, name))
        else:
            inner = ", ".join(sorted(get_type_hints(kinds[name])))
            raise ConfigError(f"{place} must be a group of settings ({inner}), not {value!r}")
    try:
        return dataclasses.replace(base, **values)  # type: ignore[type-var]
    except ConfigError as error:
        # A group inside a group (an optimizer, say) does not know whose it is.
        nested = where.count(".") > 1
        raise ConfigError(f"{where[:-1]}: {error}" if nested else str(error)) from error


def describe_type(kind: Any) -> str:
    """What a setting of this type must be, in words."""
    if get_origin(kind) is Literal:
        *rest, last = map(str, get_args(kind))
        return f"{', '.join(rest)} or {last}" if rest else last
    if get_origin(kind) in (Union, types.UnionType):
        parts = [describe_type(part) for part in get_args(kind) if part is not type(None)]
        return " or ".join(parts).replace(" or ", ", ", len(parts) - 1)
    if get_origin(kind) in (tuple, list):
        return "a list of numbers" if get_args(kind)[0] in (int, float) else "a list"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return words.get(kind, str(kind))


def _read_value(place: str, kind: Any, value: Any) -> Any:
    """A value of the setting's type; only what is plainly meant is converted."""
    if get_origin(kind) is Literal and str(value) in get_args(kind):
        return str(value)  # YAML reads the choice 32 as a number
    if get_origin(kind) in (Union, types.UnionType):
        if value is None and type(None) in get_args(kind):
            return None
        *rest, last = (part for part in get_args(kind) if part is not type(None))
        for part in rest:
            with suppress(ConfigError):
                return _read_value(place, part, value)
        try:
            return _read_value(place, last, value)
        except ConfigError as error:
            raise ConfigError(f"{place} must be {describe_type(kind)}, not {value!r}") from error
    if get_origin(kind) is tuple and isinstance(value, list | tuple):
        return tuple(_read_value(place, get_args(kind)[0], part) for part in value)
    if kind is float and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-3 as text
        except ValueError:
            pass
    elif kind in (bool, int, float, str) and type(value) is kind:
        return value
    raise ConfigError(f"{place} must be {describe_type(kind)}, not {value!r}")


def read_config(path: str | Path, base: FitConfig | None = None) -> FitConfig:
    """Read a FitConfig from a YAML file (a run's config.yaml, or one that a person wrote).

    Args:
        path: the file.
        base: where settings that the file leaves out come from; the standard preset where None.

    Raises:
        ConfigError: there is no such file, it is no YAML mapping, or a setting is wrong.
    """
    return read_settings(path, "fit", base or load_preset("standard"))


def read_settings(path: str | Path, group: str, base: T) -> T:
    """Read settings from a YAML file: from a group of it where it has that, else from the file as a whole.

    Args:
        path: the file.
        group: name of the group, such as a run's config.yaml has.
        base: where settings that the file leaves out come from.

    Raises:
        ConfigError: there is no such file, it is no YAML mapping, or a setting is wrong.
    """
    try:
        plain = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(plain, dict):
        raise ConfigError(f"{path} holds no settings: a YAML mapping was expected")
    settings = plain.get(group, plain)
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: {group} must be a group of settings, not {settings!r}")
    try:
        return from_plain(type(base), settings, base=base)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error

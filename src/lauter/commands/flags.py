"""Flags generated from the config dataclasses: the same names as in Python and in YAML, with dashes."""

import dataclasses
import difflib
import re
import sys
from argparse import SUPPRESS, Action
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin

import numpy as np
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace
from numpy.typing import NDArray

from lauter.config import FitConfig, describe_type, from_plain, load_preset, read_settings, to_plain
from lauter.data import Dataset, ImageFault, available_splits, open_dataset
from lauter.data.bare import open_images
from lauter.data.dataset import Images
from lauter.data.sources.folder import IMAGE_SUFFIXES
from lauter.data.sources.table import find_shards
from lauter.errors import ConfigError, LauterError
from lauter.preparation import open_test
from lauter.run import check_directory

T = TypeVar("T")


class _UsageError(LauterError):
    """The words of a command are off."""


class _Formatter(DefaultHelpFormatter):
    """Help in the words of users: no Python types, switches with their ``--no-`` form."""

    def _get_help_string(self, action: Action) -> str:
        text = (action.help or "").rstrip(".").replace("``", "")
        told = action.option_strings and str(action.default) not in ("None", "", "False", SUPPRESS)
        return f"{text} (default: %(default)s)" if told else text

    def _format_action_invocation(self, action: Action) -> str:
        if _is_switch(action):
            return f"--{action.dest}, --no-{action.dest}"
        return super()._format_action_invocation(action)


class Parser(ArgumentParser):
    """jsonargparse's parser with short messages, dashes in flag names and ``--no-`` switches.

    Attributes:
        presets: gives the settings of a preset, which flags and YAML override.
        group: of these settings in a run's config.yaml.
    """

    presets: Callable[[str], Any] = staticmethod(load_preset)
    group = "fit"

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what ``__main__`` turns into one line and exit code 2."""
        cause = ex
        while cause is not None:
            if isinstance(cause, LauterError):
                raise _UsageError(str(cause)) from ex
            cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
        text = " ".join(message.split())
        raise _UsageError(f"{self._reword(text)} (see lauter {self.prog.split()[-1]} --help)")

    def format_help(self, *arguments: Any, **options: Any) -> str:
        """Help with dashes, as flags are typed."""
        return _dashes(super().format_help(*arguments, **options))

    def _reword(self, message: str) -> str:
        """A message of jsonargparse in terms of flags; as it is where it is of another kind."""
        if missing := re.match(r"the following arguments are required: (.*)", message):
            return f"{missing[1].upper()} is missing"
        if bare := re.match(r"argument (\S+): expected", message):
            return f"{_dashes(bare[1])} needs a value"
        if unknown := re.match(r"unrecognized arguments: (\S+)", message):
            word = _dashes(unknown[1].partition("=")[0])
            if not word.startswith("-"):
                return f"{word!r} is one word too many"
            shown = [action for action in self._actions if action.help != SUPPRESS]
            flags = [_dashes(option) for action in shown for option in action.option_strings]
            near = difflib.get_close_matches(word, flags, n=3, cutoff=0.7)
            return f"there is no flag {word}" + (f"; near it: {', '.join(near)}" if near else "")
        wrong = re.match(r'Parser key "([\w.]+)":.* [vV]alue: (.*)$', message)
        for action in self._actions:
            kind = getattr(action, "_typehint", None)
            if wrong and action.dest == wrong[1] and kind is not None:
                return f"--{_dashes_in(wrong[1])} must be {describe_type(kind)}, not {wrong[2]!r}"
        return _dashes(message)


def make_parser(verb: str, description: str, usage: str) -> Parser:
    """A parser for a verb.

    Args:
        verb: its name.
        description: first paragraph of its help.
        usage: what stands behind the verb in the usage line.
    """
    return Parser(
        prog=f"lauter {verb}",
        description=description,
        usage=f"lauter {verb} {usage}",
        formatter_class=_Formatter,
        allow_abbrev=False,
    )


def add_data_flags(parser: Parser, *, test: bool = True, reduced: bool = True) -> None:
    """DATA and how to read it.

    Args:
        parser: gets the flags.
        test: whether the data is trained on, beside a test set.
        reduced: whether views are made of it, which may do with less than the whole resolution.
    """
    parser.add_argument(
        "data",
        help="folder of class folders, table, Hugging Face data set, published noisy set, or digits",
    )
    parser.add_argument("--label_column", type=str | None, help="column of the labels as given")
    parser.add_argument(
        "--truth_column", type=str | None, help="column of the true labels; for evaluation only"
    )
    parser.add_argument("--image_column", type=str | None, help="column of image paths or encoded images")
    parser.add_argument("--id_column", type=str | None, help="column of unique ids; else image paths")
    parser.add_argument("--split", type=str | None, help="split to open, train by default")
    parser.add_argument("--size", type=int | None, help="open a stratified part of so many images")
    if reduced:
        parser.add_argument(
            "--reduced_decoding",
            type=bool,
            default=False,
            help="decode JPEG images at a smaller scale where views need no more; pixels differ a little",
        )
    if test:
        parser.add_argument(
            "--min_per_class", type=int, default=2, help="labelled images that every class must have"
        )
        parser.add_argument(
            "--test", type=str | None, help="labelled images to score on; by default the split named test"
        )


def add_label_flags(parser: Parser) -> None:
    """A checked label table, and what becomes of the images that it drops."""
    parser.add_argument(
        "--labels",
        type=str | None,
        help="checked label table of the same images (.parquet or .csv): its labels take the given ones' "
        "place, and those that a person decided are final",
    )
    parser.add_argument(
        "--drop",
        type=bool,
        default=False,
        help="leave out the images that the label table drops; else they teach by mimicking",
    )


def add_run_flags(parser: Parser, *, teacher: str | None = None) -> None:
    """Where a run is kept, how it continues, and all settings of :class:`FitConfig`.

    Args:
        parser: gets the flags.
        teacher: what ``--teacher`` means, where it is not the name of a network.
    """
    parser.add_argument("--out", default="lauter-run", help="directory of the run")
    parser.add_argument("--resume", type=bool, default=False, help="continue the run in that directory")
    parser.add_argument("--tensorboard", type=bool, default=False, help="also write TensorBoard logs")
    add_setting_flags(parser, teacher=teacher)


def add_setting_flags(parser: Parser, *, teacher: str | None = None, leave_out: Sequence[str] = ()) -> None:
    """Preset, YAML file and the settings that the parser's presets fill in, :class:`FitConfig` for most.

    Args:
        parser: gets the flags.
        teacher: what ``--teacher`` means, where it is not the name of a network.
        leave_out: settings, and groups of them, that the verb does not use.
    """
    parser.add_argument(
        "--preset", default="standard", help="quick, standard or thorough: fills in the settings below"
    )
    parser.add_argument(
        "--config",
        type=str | None,
        help="YAML file of settings, a run's config.yaml for one; what it leaves out comes from the preset",
    )
    kind = type(parser.presets("standard"))
    parser.add_class_arguments(kind, None, skip=set(leave_out))
    groups = {entry.name for entry in dataclasses.fields(kind) if dataclasses.is_dataclass(entry.type)}
    for action in parser._actions:
        if action.dest == "teacher" and teacher is not None:
            action.help = teacher
        if action.dest.partition(".")[0] in groups and getattr(action, "_typehint", None) is None:
            action.help = SUPPRESS  # a group as a whole has no value on the command line
            for group in parser._action_groups:
                if action in group._group_actions:
                    group.title = f"{action.dest}: {group.title}"


def parse(parser: Parser, argv: Sequence[str]) -> Namespace:
    """Parse flags as users type them: ``--label-column C``, ``--resume``, ``--no-baseline``."""
    switches = {action.dest: _values_of(action) for action in parser._actions if _is_switch(action)}
    words = []
    literal = False
    for place, word in enumerate(argv):
        literal = literal or word == "--"
        if literal or not word.startswith("--"):
            words.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if name.startswith("no_") and name[3:] in switches and not equals:
            words.append(f"--{name[3:]}=false")
        elif (
            name in switches
            and not equals
            and (argv[place + 1 : place + 2] or ["--"])[0] not in switches[name]
        ):
            words.append(f"--{name}=true")
        else:
            words.append(f"--{name}{equals}{value}")
    return parser.parse_args(words)


def parse_run(parser: Parser, argv: Sequence[str]) -> tuple[Namespace, FitConfig]:
    """Parse the flags of a run: a flag counts before the YAML file, the file before the preset.

    Raises:
        LauterError: a flag or a setting is unknown or wrong, or the run's directory is not free.
    """
    arguments, config = parse_settings(parser, argv)
    check_directory(arguments.out, resume=arguments.resume)
    return arguments, config


def parse_settings(parser: Parser, argv: Sequence[str]) -> tuple[Namespace, FitConfig]:
    """Parse flags with settings among them: a flag counts before the YAML file, the file before the preset.

    Raises:
        LauterError: a flag or a setting is unknown or wrong.
    """
    arguments, config = parse_settings_of(FitConfig, parser, argv)
    return arguments, config


def parse_settings_of(kind: type[T], parser: Parser, argv: Sequence[str]) -> tuple[Namespace, T]:
    """The same for a parser whose presets are of another kind."""
    first = _first_settings(argv, parser)
    shown = {action.dest.partition(".")[0] for action in parser._actions}
    parser.set_defaults({name: value for name, value in to_plain(first).items() if name in shown})
    arguments = parse(parser, argv)
    known = shown & set(to_plain(first))
    plain = to_plain(arguments.as_dict())
    return arguments, from_plain(kind, {name: plain[name] for name in known}, base=first)


def _first_settings(argv: Sequence[str], parser: Parser) -> Any:
    chosen = {"--preset": "standard", "--config": ""}
    for place, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name in chosen:
            chosen[name] = value if equals else "".join(argv[place + 1 : place + 2])
    preset = parser.presets(chosen["--preset"])
    return read_settings(chosen["--config"], parser.group, preset) if chosen["--config"] else preset


def open_data(arguments: Namespace, config: FitConfig) -> tuple[Dataset, Dataset | None]:
    """Open DATA and, where there is one, its test set (see :func:`lauter.preparation.open_test`)."""
    columns = {name: arguments[name] for name in ("image_column", "id_column")}
    labels = {name: arguments[name] for name in ("label_column", "truth_column")}
    data = open_dataset(
        arguments.data,
        split=arguments.split,
        size=arguments.size,
        seed=config.seed,
        image_size=config.image_size or None,
        min_per_class=arguments.min_per_class,
        reduced_decoding=arguments.reduced_decoding,
        **labels,
        **columns,
    )
    if arguments.test is not None:
        return data, open_test(arguments.test, data, **labels, **columns)
    if arguments.split == "test" or "test" not in available_splits(arguments.data):
        return data, None
    return data, open_test(arguments.data, data, split="test", **labels, **columns)


def open_unlabelled(spec: str, image_size: int) -> tuple[Images, NDArray[np.str_], tuple[ImageFault, ...]]:
    """Images with their ids and faults, whether they are labelled or not.

    Args:
        spec: an image, a folder with images at any depth, or what :func:`lauter.open_dataset` opens.
        image_size: side in pixels.
    """
    path = Path(spec).expanduser()
    holds_images = path.suffix.lower() in IMAGE_SUFFIXES if path.is_file() else path.is_dir()
    if holds_images and not find_shards(path):
        return open_images(path, image_size)
    data = open_dataset(spec, image_size=image_size, min_per_class=0)
    return data.images, data.ids, data.faults


def tell_faults(faults: Sequence[ImageFault]) -> None:
    """Say on stderr which images were left out, and how many were changed to be used."""
    for fault in faults:
        if fault.dropped:
            print(f"left out    {fault.id}: {fault.fault} ({fault.detail})", file=sys.stderr)
    if changed := len({fault.id for fault in faults if not fault.dropped}):
        print(f"changed     {changed:,} of the images (turned, or converted to 8-bit RGB)", file=sys.stderr)


def require_free(path: str | Path) -> Path:
    """A path where nothing is yet.

    Raises:
        ConfigError: something is.
    """
    path = Path(path)
    if path.exists():
        raise ConfigError(f"{path} exists already; choose another --out")
    return path


def _is_switch(action: Action) -> bool:
    """Whether a flag may stand alone: it is true or false, or besides that one of a few words."""
    kind = getattr(action, "_typehint", None)
    return kind is bool or bool in get_args(kind)


def _values_of(action: Action) -> set[str]:
    """The words that a switch takes behind it."""
    kinds = get_args(getattr(action, "_typehint", None))
    words = {str(word) for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)}
    return {"true", "false", *words}


def _dashes_in(name: str) -> str:
    return name.replace("_", "-")


def _dashes(text: str) -> str:
    return re.sub(r"--[a-z][a-z_.-]*", lambda match: _dashes_in(match.group()), text)

"""Flags generated from the config dataclasses: the same names as in Python and in YAML, with dashes."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from lauter.config import FitConfig, from_plain, load_preset, read_config, to_plain
from lauter.data import Dataset, open_dataset
from lauter.errors import ConfigError, LauterError


class _UsageError(LauterError):
    """The words of a command are off."""


class Parser(ArgumentParser):
    """jsonargparse's parser with short messages, dashes in flag names and ``--no-`` switches."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what ``__main__`` turns into one line and exit code 2."""
        cause = ex
        while cause is not None:
            if isinstance(cause, LauterError):
                raise _UsageError(str(cause)) from ex
            cause = cause.__cause__ or cause.__context__  # type: ignore[assignment]
        raise _UsageError(f"{_dashes(' '.join(message.split()))} (see lauter {self.prog.split()[-1]} --help)")

    def format_help(self, *arguments: Any, **options: Any) -> str:
        """Help with dashes, as flags are typed."""
        return _dashes(super().format_help(*arguments, **options))


def make_parser(verb: str, description: str, usage: str) -> Parser:
    """A parser for a verb.

    Args:
        verb: its name.
        description: first paragraph of its help.
        usage: what stands behind the verb in the usage line.
    """
    return Parser(prog=f"lauter {verb}", description=description, usage=f"lauter {verb} {usage}")


def add_data_flags(parser: Parser, *, test: bool = True) -> None:
    """DATA and how to read it."""
    parser.add_argument(
        "data", help="folder of class folders, CSV or Parquet table, Hugging Face data set, or digits"
    )
    parser.add_argument("--label_column", type=str | None, help="column of the labels as given")
    parser.add_argument(
        "--truth_column", type=str | None, help="column of the true labels; for evaluation only"
    )
    parser.add_argument("--split", type=str | None, help="split to open, train by default")
    parser.add_argument("--size", type=int | None, help="open a stratified part of so many images")
    if test:
        parser.add_argument(
            "--test", type=str | None, help="labelled images to score on; by default the split named test"
        )


def add_run_flags(parser: Parser) -> None:
    """Where a run is kept, how it continues, and all settings of :class:`FitConfig`."""
    parser.add_argument(
        "--preset", default="standard", help="quick, standard or thorough: fills in the settings below"
    )
    parser.add_argument("--config", type=str | None, help="YAML file of settings, instead of a preset")
    parser.add_argument("--out", default="lauter-run", help="directory of the run")
    parser.add_argument("--resume", type=bool, default=False, help="continue the run in that directory")
    parser.add_argument("--tensorboard", type=bool, default=False, help="also write TensorBoard logs")
    parser.add_class_arguments(FitConfig, None)


def parse(parser: Parser, argv: Sequence[str]) -> Namespace:
    """Parse flags as users type them: ``--label-column C``, ``--resume``, ``--no-baseline``."""
    switches = {action.dest for action in parser._actions if getattr(action, "_typehint", None) is bool}
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
            and (argv[place + 1 : place + 2] or ["--"])[0] not in ("true", "false")
        ):
            words.append(f"--{name}=true")
        else:
            words.append(f"--{name}{equals}{value}")
    return parser.parse_args(words)


def parse_run(parser: Parser, argv: Sequence[str]) -> tuple[Namespace, FitConfig]:
    """Parse the flags of a run; the settings start from the preset or the YAML file."""
    parser.set_defaults(to_plain(_first_settings(argv)))
    arguments = parse(parser, argv)
    plain = to_plain(arguments.as_dict())
    known = {entry.name for entry in dataclasses.fields(FitConfig)}
    return arguments, from_plain(FitConfig, {name: plain[name] for name in plain if name in known})


def _first_settings(argv: Sequence[str]) -> FitConfig:
    chosen = {"--preset": "standard", "--config": ""}
    for place, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if name in chosen:
            chosen[name] = value if equals else "".join(argv[place + 1 : place + 2])
    return read_config(chosen["--config"]) if chosen["--config"] else load_preset(chosen["--preset"])


def open_data(arguments: Namespace, config: FitConfig | None = None) -> tuple[Dataset, Dataset | None]:
    """Open DATA and, where there is one, its test set.

    The test set is scored by its truth column where it has that, else by its label column, else by the
    column that holds the truth of the training part.
    """
    from lauter.data import available_splits

    size = (config.image_size if config else 0) or None
    options: dict[str, Any] = {"image_size": size}
    data = open_dataset(
        arguments.data,
        split=arguments.split,
        label_column=arguments.label_column,
        truth_column=arguments.truth_column,
        size=arguments.size,
        seed=config.seed if config else 0,
        **options,
    )
    options["image_size"] = data.source.get("image_size")
    spec, split = getattr(arguments, "test", None), None
    if spec is None:
        if "test" not in available_splits(arguments.data) or arguments.split == "test":
            return data, None
        spec, split = arguments.data, "test"
    elif "test" in available_splits(spec):
        split = "test"
    names = list(data.class_names)
    label, truth = arguments.label_column, arguments.truth_column
    # The test part may have both columns, or the truth alone (as CIFAR-10 beside CIFAR-10N's labels).
    tried = [(label, truth), (truth, None)] if truth else [(label, None)]
    for last, (label_column, truth_column) in enumerate(tried, start=1):
        try:
            test = open_dataset(
                spec,
                split=split,
                label_column=label_column,
                truth_column=truth_column,
                class_names=names,
                min_per_class=0,
                **options,
            )
            break
        except LauterError:
            if last == len(tried):
                raise
    if test.true_labels is None:
        test = test.subset(test.labelled)
    return data, test


def require_free(path: str | Path) -> Path:
    """A path where nothing is yet.

    Raises:
        ConfigError: something is.
    """
    path = Path(path)
    if path.exists():
        raise ConfigError(f"{path} exists already; choose another --out")
    return path


def _dashes(text: str) -> str:
    return re.sub(r"--[a-z][a-z_.]*", lambda match: match.group().replace("_", "-"), text)

"""``lauter audit``: which labels are wrong, how sure that is, what a person should look at."""

import shlex
from collections.abc import Sequence

import numpy as np
from rich.console import Console

from lauter.audit_config import SET_ABOVE, AuditConfig, load_audit_preset
from lauter.auditing.summary import summarise_audit
from lauter.commands import flags
from lauter.data import available_splits, open_dataset
from lauter.errors import ConfigError
from lauter.label_audit import AuditOptions, audit
from lauter.training.processes import read_processes


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    parser = flags.make_parser(
        "audit",
        "Which labels are wrong, how sure that is, and what a person should look at: a label table and a "
        "page to review it in. No image is judged by a model that was fitted to its own label.",
        "DATA [flags]",
    )
    flags.add_data_flags(parser)
    parser.add_argument("--out", default="lauter-audit", help="directory of the audit")
    parser.add_argument("--resume", type=bool, default=False, help="continue the audit in that directory")
    parser.add_argument(
        "--corrected",
        type=bool,
        default=False,
        help="also write corrected/: manifests of the images to use, with corrected labels",
    )
    parser.add_argument(
        "--probabilities",
        type=str | None,
        help="a .npy file [images, classes] of out-of-fold predictions of a model of your own",
    )
    parser.presets = load_audit_preset
    parser.group = "audit"
    flags.add_setting_flags(parser, leave_out=SET_ABOVE)
    arguments, config = flags.parse_settings_of(AuditConfig, parser, argv)
    processes = read_processes()
    columns = {name: arguments[name] for name in ("image_column", "id_column")}
    labels = {name: arguments[name] for name in ("label_column", "truth_column")}
    data = open_dataset(
        arguments.data,
        split=arguments.split,
        size=arguments.size,
        seed=config.seed,
        min_per_class=arguments.min_per_class,
        reduced_decoding=arguments.reduced_decoding,
        **labels,
        **columns,
    )
    test = None
    if config.images and (arguments.test is not None or _has_test(arguments.data, arguments.split)):
        spec = arguments.data if arguments.test is None else arguments.test
        split = "test" if "test" in available_splits(spec) else None
        reduced = arguments.reduced_decoding
        test = open_dataset(spec, split=split, min_per_class=0, reduced_decoding=reduced, **columns)
    result = audit(
        data,
        probabilities=_read_probabilities(arguments.probabilities),
        test=test,
        config=config,
        options=AuditOptions(
            arguments.out,
            arguments.resume,
            arguments.corrected,
            Console(soft_wrap=True) if processes.leads else None,
            processes,
        ),
    )
    if result is None or result.directory is None:
        return 0
    where = result.directory
    print(summarise_audit(result.metrics))
    print(f"labels      {where / 'labels.parquet'} and labels.csv")
    print(f"report      {where / 'report.html'}: review there, download decisions.csv, then")
    print(f"            lauter apply decisions.csv --labels {shlex.quote(str(where / 'labels.parquet'))}")
    return 0


def _has_test(data: str, split: str | None) -> bool:
    return split != "test" and "test" in available_splits(data)


def _read_probabilities(path: str | None) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None":
    if path is None:
        return None
    try:
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
    except (OSError, ValueError) as error:
        raise ConfigError(f"probabilities {path!r} cannot be read as .npy: {error}") from error

"""Hugging Face data sets: saved to disk by ``datasets``, or fetched from the Hub into its own cache."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lauter.data.sources.listing import Listing, order_splits
from lauter.data.sources.table import Columns, choose_split, list_table
from lauter.errors import DataError

HUB_PREFIX = "hf:"
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_SAVED_MARKS = ("dataset_dict.json", "state.json")


def is_saved(folder: Path) -> bool:
    """Whether the folder was written by ``save_to_disk``."""
    return any((folder / mark).is_file() for mark in _SAVED_MARKS)


def is_hub_name(spec: str) -> bool:
    """Whether a spec that is no path can be a data set on the Hub: 'hf:...', or 'owner/name'."""
    return spec.startswith(HUB_PREFIX) or _HUB_NAME.fullmatch(spec) is not None


def list_saved(
    folder: Path, split: str | None, columns: Columns, class_names: Sequence[str] | None
) -> Listing:
    """List what ``datasets`` saved to disk; its Arrow files are mapped, not read."""
    loaded = _load_saved(folder)
    if isinstance(loaded, dict):
        split = choose_split(order_splits(loaded), split, str(folder))
        loaded = loaded[split]
    elif split not in (None, str(loaded.split)):
        raise DataError(f"{folder}: split={split!r} was asked for, but one split ({loaded.split}) was saved")
    return _list_rows(loaded, folder.resolve().name, folder, str(folder), split, columns, class_names)


def list_hub(spec: str, split: str | None, columns: Columns, class_names: Sequence[str] | None) -> Listing:
    """List a data set on the Hub, downloading it into the cache of ``datasets``.

    Raises:
        DataError: the name is neither a path nor a data set that the Hub gives.
    """
    import datasets  # a second to import, and few need it

    name = spec.removeprefix(HUB_PREFIX)
    split = choose_split(list_hub_splits(spec), split, spec)
    try:
        loaded = datasets.load_dataset(name, split=split)
    except Exception as error:  # the Hub's client raises its own, the network's and the file system's errors
        raise _unreachable(spec, error) from error
    return _list_rows(loaded, name.split("/")[-1], Path(), spec, split, columns, class_names)


def list_saved_splits(folder: Path) -> tuple[str, ...]:
    """Splits of what ``save_to_disk`` wrote; none for a single data set."""
    loaded = _load_saved(folder)
    return order_splits(loaded) if isinstance(loaded, dict) else ()


def list_hub_splits(spec: str) -> tuple[str, ...]:
    """Splits of a data set on the Hub.

    Raises:
        DataError: the name is neither a path nor a data set that the Hub gives.
    """
    import datasets

    try:
        return order_splits(datasets.get_dataset_split_names(spec.removeprefix(HUB_PREFIX)))
    except Exception as error:
        raise _unreachable(spec, error) from error


def _load_saved(folder: Path) -> Any:
    import datasets

    try:
        return datasets.load_from_disk(str(folder))
    except Exception as error:  # broken JSON, missing Arrow files, features of a newer version, ...
        raise DataError(f"{folder}: looks saved by datasets, but cannot be loaded ({error})") from error


def _list_rows(
    loaded: Any,
    name: str,
    folder: Path,
    where: str,
    split: str | None,
    columns: Columns,
    class_names: Sequence[str] | None,
) -> Listing:
    table = loaded.with_format("arrow")[:]
    table = table.replace_schema_metadata(loaded.features.arrow_schema.metadata)
    return list_table(table, name, folder, where, None, columns, class_names, whole_split=split)


def _unreachable(spec: str, error: Exception) -> DataError:
    reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
    return DataError(
        f"{spec!r} is neither a folder or file here nor a data set that the Hugging Face Hub gives: "
        f"{reason}; check the spelling, the network and, for gated sets, the login"
    )

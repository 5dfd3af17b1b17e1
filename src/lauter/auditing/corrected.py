"""The corrected data set as a manifest: which images to use, under which labels. No image is touched."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lauter.auditing.label_table import match_table, write_label_table
from lauter.data import Dataset
from lauter.data.opening import find_files
from lauter.errors import DataError

MANIFESTS = ("manifest.csv", "manifest.parquet")


def write_corrected(folder: str | Path, data: Dataset, table: pd.DataFrame) -> tuple[Path, Path]:
    """Write the images to use, with their corrected labels, as ``manifest.csv`` and ``manifest.parquet``.

    Columns: id, path, label, given, verdict, p_given_right. ``label`` is the given label where it is kept or
    asked about (``verdict`` tells these apart), the suggested one where it is relabelled, and empty where an
    image has none; dropped images are left out, and images without a row in the table keep their label, with
    an empty verdict. Paths are absolute, so that the manifest can be moved, and the column is left out where
    the images are no files of their own, such as those of Parquet shards: it is then a list of labels by id.

    With paths, ``lauter.open_dataset(folder / "manifest.csv")`` opens the images under these labels and the
    ids that they had.

    Args:
        folder: is made where it is not there; manifests in it are replaced.
        data: the images of the table, as they were audited.
        table: the checked label table.

    Returns:
        The two files.

    Raises:
        DataError: the table is of other images or labels (see
            :func:`lauter.auditing.label_table.match_table`), images are not where they were, or a file name
            is no text.
    """
    found = match_table(data, table)
    rows = np.flatnonzero(found.verdicts != "drop")
    files = find_files(data.subset(rows)) if len(rows) else None
    names: NDArray[np.object_] = np.array([*data.class_names, None], dtype=object)  # -1 meets the last
    given = data.labels if data.original_labels is None else data.original_labels
    p_right = np.full(len(data), np.nan)
    if "p_given_right" in table.columns:
        told = table["p_given_right"].to_numpy(dtype=np.float64)
        p_right = np.where(found.place >= 0, told[found.place], np.nan)
    columns: dict[str, Any] = {"id": data.ids[rows].astype(object)}
    if files is not None:
        columns["path"] = _tell_paths(files)
    columns |= {
        "label": names[found.labels[rows]],
        "given": names[given[rows]],
        "verdict": found.verdicts[rows].astype(object),
        "p_given_right": p_right[rows],
    }
    first, second = (Path(folder) / name for name in MANIFESTS)
    write_label_table(pd.DataFrame(columns), first, second)
    return first, second


def _tell_paths(files: list[Path]) -> list[str]:
    paths = [str(file) for file in files]
    if strange := [path for path in paths if not _is_text(path)]:
        raise DataError(
            f"{len(strange)} file names are no UTF-8 and cannot stand in a manifest, the first is "
            f"{strange[0]!r}; rename these files and audit again"
        )
    return paths


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:  # Python keeps bytes of a name that are no UTF-8 as lone surrogates
        return False
    return True

"""What an audit's page is made of."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lauter.auditing.judgement import VERDICTS, Judgement
from lauter.data.dataset import ImageFault
from lauter.errors import DataError

REQUIRED_COLUMNS = ("id", "given", "verdict", "suggested", "p_given_right")
PROBABILITY_COLUMNS = ("p_given_right", "p_suggested_right", "p_open")
NAME_COLUMNS = ("given", "suggested")


@dataclass(frozen=True, eq=False)
class AuditContent:
    """Everything the page of an audit shows. A part that is empty or None is left out of the page.

    Attributes:
        title: heading of the page.
        data_name: name of the data set.
        class_names: K class names, each once.
        table: [N] rows, row i about image i, with the columns id, given, verdict (one of ``VERDICTS``),
            suggested, p_given_right, and where known p_suggested_right, p_open, near_duplicate_group (an
            integer, -1 where alone), leak (id of the twin in another split, or empty), faults (words, or
            empty), part (name of the split), map_x and map_y. given and suggested are class names; given is
            missing for unlabelled images.
        judgement: what the audit says as a whole; its rows are those of ``table``.
        picture: row -> uint8 [3, H, W]; None for a page without pictures.
        faults: images that were left out or changed.
        config: the resolved configuration.
        seconds: stage -> how long it took.
        versions: library -> version.
        truth: scores against the true labels, where a benchmark knows them: name -> number.
    """

    title: str
    data_name: str
    class_names: tuple[str, ...]
    table: pd.DataFrame
    judgement: Judgement
    picture: Callable[[int], NDArray[np.uint8]] | None = None
    faults: Sequence[ImageFault] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    truth: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for problem in _find_problems(self):
            raise DataError(problem)

    def fingerprint(self) -> str:
        """Hash of class names, ids, given and suggested labels and verdicts, as 32 hex digits.

        Decisions that a person makes in the page belong to it: another audit has another one.
        """
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        for name in ("id", "given", "verdict", "suggested"):
            digest.update(json.dumps([str(value) for value in self.table[name]]).encode())
        return digest.hexdigest()[:32]


def _find_problems(content: AuditContent) -> Iterator[str]:
    table = content.table
    missing = [name for name in REQUIRED_COLUMNS if name not in table.columns]
    if missing:
        yield f"the audit's table lacks the column {missing[0]!r}; it needs {', '.join(REQUIRED_COLUMNS)}"
        return
    if ("map_x" in table.columns) != ("map_y" in table.columns):
        yield "the audit's table has one of map_x and map_y; the feature map needs both, or none"
    if len(set(content.class_names)) < len(content.class_names):
        yield "class names must differ: a decision names its class by its name"
    if len(content.judgement.verdicts) != len(table):
        yield (
            f"the audit's table has {len(table)} rows and its judgement {len(content.judgement.verdicts)}; "
            "row i of both must be about image i"
        )
    again = table["id"][table["id"].duplicated()]
    if len(again):
        yield f"ids must be unique: {str(again.iloc[0])!r} stands in the audit's table more than once"
    unknown = sorted({str(value) for value in table["verdict"].unique()} - set(VERDICTS))
    if unknown:
        yield f"verdict must be one of {', '.join(VERDICTS)}, not {unknown[0]!r}"
    for name in NAME_COLUMNS:
        strange = sorted({str(value) for value in table[name].dropna().unique()} - set(content.class_names))
        if strange:
            yield f"{name} must be one of the {len(content.class_names)} class names, not {strange[0]!r}"
    for name in PROBABILITY_COLUMNS:
        if name in table.columns:
            values = table[name].to_numpy(dtype=np.float64, na_value=np.nan)
            bad = np.flatnonzero((values < 0) | (values > 1))
            if len(bad):
                row = int(bad[0])
                yield f"{name} must be in 0..1, not {values[row]} for {str(table['id'].iloc[row])!r}"

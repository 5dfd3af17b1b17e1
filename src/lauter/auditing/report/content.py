"""What a report is made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lauter.data.dataset import ImageFault
from lauter.errors import DataError

VERDICTS = ("keep", "relabel", "drop", "ask", "unlabelled")
ROLES = ("student", "teacher", "baseline")
REQUIRED_COLUMNS = ("id", "given", "verdict", "suggested", "p_given_right")


@dataclass(frozen=True, eq=False)
class ReportContent:
    """Everything a report shows. A part that is empty or None is left out of the page.

    Attributes:
        title: heading of the page.
        dataset_name: name of the data set.
        class_names: K names.
        ids: [N] ids of the data set's images; ``picture`` and ``labels`` meet in them.
        labels: one row by judged image, in any order, with columns id, given, verdict (one of ``VERDICTS``),
            suggested, p_given_right and, where known, p_open. given and suggested are class names; given is
            missing for unlabelled images. None for a report without verdicts.
        picture: row of ``ids`` -> uint8 [3, H, W]; None for a report without pictures.
        metrics: as metrics.json holds them: scores by role, ``labels``, ``cost``. A role may also state its
            ``parameters`` and its ``flops`` by image.
        history: epochs as metrics.jsonl holds them.
        comparison: student and teacher at the end, as comparison.json holds them (see
            ``lauter.distillation.analysis.Comparison``); its classes are codes of ``class_names``.
        faults: images that were left out or changed.
        config: the resolved configuration.
    """

    title: str
    dataset_name: str
    class_names: tuple[str, ...]
    ids: NDArray[np.str_] | Sequence[str]
    labels: pd.DataFrame | None = None
    picture: Callable[[int], NDArray[np.uint8]] | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    comparison: Mapping[str, Any] = field(default_factory=dict)
    faults: Sequence[ImageFault] = ()
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.labels is None:
            return
        missing = [name for name in REQUIRED_COLUMNS if name not in self.labels.columns]
        if missing:
            raise DataError(
                f"the labels table lacks the column {missing[0]!r}; it needs {', '.join(REQUIRED_COLUMNS)}"
            )
        unknown = sorted({str(value) for value in self.labels["verdict"]} - set(VERDICTS))
        if unknown:
            raise DataError(f"verdict must be one of {', '.join(VERDICTS)}, not {unknown[0]!r}")
        strange = sorted({str(value) for value in self.labels["id"]} - {str(value) for value in self.ids})
        if strange:
            raise DataError(
                f"the labels table has the id {strange[0]!r}, which the data set has not "
                f"({len(strange)} such); it belongs to another data set"
            )

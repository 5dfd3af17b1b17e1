"""What the pictures of a data set give away by themselves: faults, near-duplicates, leaks, conflicts."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lauter.auditing.duplicates import (
    ALONE,
    DuplicateGroups,
    DuplicateRules,
    find_twins,
    group_twins,
)
from lauter.auditing.image_faults import FaultRules, find_image_faults
from lauter.auditing.image_measures import (
    ImageMeasures,
    Progress,
    join_measures,
    measure_images,
)
from lauter.auditing.leaks import find_conflicts, find_leaks
from lauter.data.dataset import UNLABELLED, Dataset, ImageFault
from lauter.errors import DataError


@dataclass(frozen=True, eq=False)
class ImageFindings:
    """What is noticed about N images without a model.

    Attributes:
        ids: [N] ids.
        groups: near-duplicates among the images.
        leaks: [N] id of the closest twin in another split, '' where there is none.
        leak_splits: [N] the split that this twin is in, '' where there is none.
        conflicts: [N] whether the image is labelled and a near-duplicate of it carries another label.
        faults: of images that were left out or changed when they were opened, then of pictures, each once.
        bar: similarity from which on two thumbnails were taken for the same picture.
        seconds: 'pixels' and 'duplicates', how long they took.
    """

    ids: NDArray[np.str_]
    groups: DuplicateGroups
    leaks: NDArray[np.str_]
    leak_splits: NDArray[np.str_]
    conflicts: NDArray[np.bool_]
    faults: tuple[ImageFault, ...]
    bar: float
    seconds: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def to_columns(self) -> dict[str, NDArray[np.generic]]:
        """Columns of the label table.

        Returns:
            near_duplicate_group: [N] number, -1 where alone; leak: [N] id of the twin, '' where none;
            faults: [N] kinds, joined by '; ', '' where none.
        """
        row_of = {name: row for row, name in enumerate(self.ids.tolist())}
        kinds: list[list[str]] = [[] for _ in self.ids]
        for fault in self.faults:
            row = row_of.get(fault.id)
            if row is not None and fault.fault not in kinds[row]:
                kinds[row].append(fault.fault)
        return {
            "near_duplicate_group": self.groups.group,
            "leak": self.leaks.astype(object),
            "faults": np.array(["; ".join(names) for names in kinds], dtype=object),
        }

    def summarise(self) -> dict[str, int | dict[str, int]]:
        """Counts for metrics.json: groups, images in them, conflicts, leaks, and faults by kind."""
        return {
            "near_duplicate_groups": len(self.groups.centres),
            "near_duplicates": int((self.groups.group != ALONE).sum()),
            "conflicts": int(self.conflicts.sum()),
            "leaks": int((self.leaks != "").sum()),
            "faults": dict(sorted(Counter(fault.fault for fault in self.faults).items())),
        }


def inspect_images(
    data: Dataset,
    *,
    splits: Sequence[str] | NDArray[np.str_] | None = None,
    beside: Mapping[str, Dataset] | None = None,
    features: NDArray[np.floating] | None = None,
    fault_rules: FaultRules | None = None,
    duplicate_rules: DuplicateRules | None = None,
    generator: np.random.Generator | None = None,
    progress: Progress | None = None,
) -> ImageFindings:
    """Look at pictures alone: one pass over the pixels, then what follows from it.

    Given labels are read to name conflicts and nothing else.

    Args:
        data: N images.
        splits: [N] split of each image, where the data set holds several; pairs across them are leaks.
        beside: further splits by name, such as {'test': ...}: their images are compared with those of
            ``data``, and nothing is said about them.
        features: [N, D] of any network; near-duplicates within ``data`` then have to agree in them too.
        fault_rules: from where on a picture is at fault.
        duplicate_rules: what counts as the same picture.
        generator: draws the hashes; by default that of seed 0.
        progress: called with the images seen and those to see, of all data sets together.

    Returns:
        Findings about the N images.

    Raises:
        DataError: splits or features do not fit the images.

    Example:
        >>> from lauter.data import open_dataset
        >>> findings = inspect_images(open_dataset("digits", size=200))
        >>> len(findings), sorted(findings.to_columns())
        (200, ['faults', 'leak', 'near_duplicate_group'])
    """
    if features is not None and (features.ndim != 2 or len(features) != len(data)):
        raise DataError(f"features must be [N, D] with N = {len(data)} images, not {list(features.shape)}")
    others = dict(beside or {})
    names = np.asarray([""] * len(data) if splits is None else splits, dtype=np.str_)
    if len(names) != len(data):
        raise DataError(f"{data.name}: {len(names)} splits for {len(data)} images; name one for each")
    own_names = set(names.tolist())
    if clash := sorted(own_names & set(others)):
        raise DataError(
            f"{data.name}: the split {clash[0]!r} is both in the data and beside it; give it another name"
        )
    rules, start = duplicate_rules or DuplicateRules(), time.perf_counter()
    own, everything = _measure_all(data, others, progress)
    seen = time.perf_counter()
    generator = generator or np.random.default_rng(0)
    twins = find_twins(everything, rules, features=features, generator=generator)
    groups = group_twins(own, twins, rules, features=features, generator=generator)
    ids = np.concatenate([data.ids, *(other.ids for other in others.values())])
    parts = np.concatenate([names, *(np.full(len(other), name) for name, other in others.items())])
    rows = find_leaks(twins, parts)[: len(data)]
    return ImageFindings(
        ids=data.ids,
        groups=groups,
        leaks=np.where(rows == ALONE, "", ids[rows] if len(ids) else ids),
        leak_splits=np.where(rows == ALONE, "", parts[rows] if len(ids) else parts),
        conflicts=find_conflicts(groups.group, data.labels),
        faults=_merge_faults(data.faults, find_image_faults(own, data.ids, fault_rules)),
        bar=twins.bar,
        seconds={"pixels": seen - start, "duplicates": time.perf_counter() - seen},
    )


def describe_groups(findings: ImageFindings, data: Dataset) -> pd.DataFrame:
    """The groups of near-duplicates, for people; those whose labels contradict each other first.

    Args:
        findings: of the data.
        data: N images with their given labels.

    Returns:
        One row per group: group; size; centre (id); labels (given labels with their counts, the most
        frequent first, such as 'cat 3, dog 1'; '' without labels); conflict; lowest_similarity of a member
        to the centre; members (ids, the closest to the centre first).

    Raises:
        DataError: findings and data are not about the same number of images.
    """
    groups = findings.groups
    if len(findings) != len(data):
        raise DataError(f"findings about {len(findings)} images do not fit {data.name} with {len(data)}")
    order = np.lexsort((np.arange(len(data)), -groups.similarity, groups.group))
    order = order[groups.group[order] != ALONE]
    starts = np.flatnonzero(np.diff(groups.group[order], prepend=-1))
    rows = [part for part in np.split(order, starts[1:]) if len(part)]
    table = pd.DataFrame(
        {
            "group": np.arange(len(rows)),
            "size": np.array([len(part) for part in rows], dtype=np.int64),
            "centre": data.ids[groups.centres].astype(object),
            "labels": [_count_labels(data, part) for part in rows],
            "conflict": np.array([findings.conflicts[part].any() for part in rows], dtype=bool),
            "lowest_similarity": np.array([groups.similarity[part].min() for part in rows], dtype=np.float32),
            "members": [data.ids[part].tolist() for part in rows],
        }
    )
    return table.sort_values(["conflict", "size"], ascending=False, kind="stable", ignore_index=True)


def _measure_all(
    data: Dataset, others: Mapping[str, Dataset], progress: Progress | None
) -> tuple[ImageMeasures, ImageMeasures]:
    """Measures of the data, and of the data with all others behind."""
    total = len(data) + sum(len(other) for other in others.values())
    before = 0

    def report(done: int, _: int) -> None:
        if progress is not None:
            progress(before + done, total)

    own = everything = measure_images(data.images, data.ids, progress=report)
    for other in others.values():
        before = len(everything)
        everything = join_measures(everything, measure_images(other.images, other.ids, progress=report))
    return own, everything


def _merge_faults(opened: Sequence[ImageFault], seen: Sequence[ImageFault]) -> tuple[ImageFault, ...]:
    """Faults of both, each kind once per image: what opening said comes first."""
    merged: dict[tuple[str, str], ImageFault] = {}
    for fault in (*opened, *seen):
        merged.setdefault((fault.id, fault.fault), fault)
    return tuple(merged.values())


def _count_labels(data: Dataset, rows: NDArray[np.int64]) -> str:
    labels = [label for label in data.labels[rows].tolist() if label != UNLABELLED]
    return ", ".join(f"{data.class_names[label]} {count}" for label, count in Counter(labels).most_common())

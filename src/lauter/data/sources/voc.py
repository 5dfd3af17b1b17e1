"""The layout of Pascal VOC: JPEGImages, Annotations and ImageSets/Main, also inside a VOCdevkit."""

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from lauter.data.sources.columns import shorten
from lauter.data.sources.listing import Listing, order_splits
from lauter.data.sources.targets import Int8s, make_targets
from lauter.errors import DataError


def find_voc(folder: Path) -> Path | None:
    """The folder that holds JPEGImages, Annotations and ImageSets: this one, or the only VOC one inside.

    Raises:
        DataError: there are several (VOC2007 beside VOC2012, say); names them.
    """
    found = [
        place
        for place in (folder, *sorted(folder.glob("VOC*")), *sorted(folder.glob("VOCdevkit/VOC*")))
        if (place / "Annotations").is_dir() and (place / "ImageSets" / "Main").is_dir()
    ]
    if len(found) > 1 and folder not in found:
        raise DataError(f"{folder} holds several VOC sets; open one of {', '.join(map(str, found))}")
    return found[0] if found else None


def list_voc_splits(root: Path) -> tuple[str, ...]:
    """Splits of a VOC set: the lists in ImageSets/Main that are not of a single class."""
    return order_splits(path.stem for path in (root / "ImageSets" / "Main").glob("*.txt") if _is_split(path))


def list_voc(root: Path, split: str | None, class_names: Sequence[str] | None) -> tuple[Listing, Int8s]:
    """List a VOC set; a class is unknown in an image where all of its objects there are difficult.

    Args:
        root: the folder of :func:`find_voc`.
        split: a list in ImageSets/Main; trainval where None and it is there, else train.
        class_names: the classes and their order; by default those that occur in the split.

    Returns:
        The listing, its own labels empty, and int8 [N, K].

    Raises:
        DataError: no such split, or an annotation that is missing or damaged.

    Source: difficult objects as in the VOC development kit's classification task: neither right nor wrong.
    """
    splits = list_voc_splits(root)
    split = split or next((name for name in ("trainval", "train") if name in splits), None)
    if split not in splits:
        raise DataError(f"{root}: no split {split!r}; its splits: {', '.join(splits) or 'none'}")
    ids = (root / "ImageSets" / "Main" / f"{split}.txt").read_text(encoding="utf-8").split()
    if len(set(ids)) < len(ids):
        twice = sorted({name for name in ids if ids.count(name) > 1})
        raise DataError(f"{root}: split {split!r} lists images more than once: {shorten(twice, 3)}")
    objects = [_read_objects(root / "Annotations" / f"{name}.xml") for name in ids]
    targets, classes = make_targets(
        [{name for name, difficult in found if not difficult} for found in objects],
        [{name for name, difficult in found if difficult} for found in objects],
        class_names,
        str(root),
    )
    listing = Listing(
        name=root.resolve().name,
        split=split,
        cells=[root / "JPEGImages" / f"{name}.jpg" for name in ids],
        rows=np.arange(len(ids)),
        ids=np.array(ids, dtype=np.str_),
        labels=np.full(len(ids), -1, dtype=np.int64),
        class_names=classes,
    )
    return listing, targets


def _is_split(path: Path) -> bool:
    """Whether a list names images alone; the list of a class has a second column."""
    with open(path, encoding="utf-8") as file:
        return re.fullmatch(r"\s*\S*\s*", file.readline()) is not None


def _read_objects(path: Path) -> list[tuple[str, bool]]:
    """(class, whether it is difficult) of every object of an annotation."""
    way_out = "leave the image out of its list in ImageSets/Main, or fetch the annotations that belong to it"
    try:
        root = ElementTree.parse(path).getroot()
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; {way_out}") from error
    except (ElementTree.ParseError, OSError) as error:
        raise DataError(f"{path} cannot be read as XML ({error}); {way_out}") from error
    found = []
    for entry in root.iter("object"):
        name = (entry.findtext("name") or "").strip()
        if not name:
            raise DataError(f"{path}: an object has no name; {way_out}")
        found.append((name, (entry.findtext("difficult") or "0").strip() == "1"))
    return found

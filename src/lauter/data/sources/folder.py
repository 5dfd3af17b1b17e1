"""A folder of class folders, walked here.

Hugging Face's loader takes a class folder named train, test or val for a split and drops the rest in
silence; here such a folder is a class like any other, unless *all* folders are named like splits and
class folders lie inside them: then the caller has to say which split is meant.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from lauter.data.dataset import ImageFault
from lauter.data.sources.listing import SPLIT_NAMES, Listing, order_classes, order_splits
from lauter.errors import DataError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif"}
)
"""File names with these endings (in any case) are taken for images."""


def list_folder(root: Path, *, split: str | None = None, class_names: Sequence[str] | None = None) -> Listing:
    """List the images of a folder of class folders.

    Images lie at any depth inside a class folder; hidden files and folders (a leading dot) are ignored;
    a folder that links back to itself is walked once. Classes stand in the order of their names, by number
    where all names are numbers. Ids are paths relative to ``root``, with forward slashes, sorted.

    Args:
        root: the folder.
        split: a folder inside ``root`` that holds the class folders.
        class_names: the classes and their order; every class folder must be one of them.

    Returns:
        The listing; other files, and images that lie in no class folder, are faults of it.

    Raises:
        DataError: no class folders, a split that is not there, splits without ``split``, or a class folder
            that is not in ``class_names``.
    """
    top = root / split if split is not None else root
    if split is not None and not top.is_dir():
        raise DataError(f"{root}: no split {split!r} here; its folders: {_join(_folders(root))}")
    folders = _folders(top)
    if split is None and not set(folders) <= set(class_names or ()) and (splits := list_splits(root)):
        raise DataError(
            f"{root} holds splits ({_join(splits)}), each with its own class folders; "
            f"pass split={splits[0]!r}, or class_names={tuple(folders)} if these are the classes"
        )
    if not folders:
        raise DataError(_explain_no_classes(top))
    names = tuple(class_names) if class_names is not None else order_classes(folders)
    if unknown := [name for name in folders if name not in names]:
        raise DataError(
            f"{top}: class folders that are not in class_names: {_join(unknown)}; expected {_join(names)}"
        )

    paths: list[Path] = []
    labels: list[int] = []
    faults: list[ImageFault] = []
    for entry in _visible(top):
        if not entry.is_dir():
            kind = "outside" if _is_image(entry.name) else "not-an-image"
            faults.append(ImageFault(_relative(entry.path, root), kind, "lies in no class folder", True))
    for name in folders:
        label = names.index(name)
        for entry in _walk(top / name):
            if _is_image(entry.name):
                paths.append(Path(entry.path))
                labels.append(label)
            else:
                detail = f"its name ends in {Path(entry.name).suffix!r}"
                faults.append(ImageFault(_relative(entry.path, root), "not-an-image", detail, True))
    ids = [_relative(path, root) for path in paths]
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
    return Listing(
        name=root.resolve().name,
        split=split,
        cells=paths,
        rows=order,
        ids=np.array(ids, dtype=np.str_)[order],
        labels=np.array(labels, dtype=np.int64)[order],
        class_names=names,
        faults=tuple(faults),
    )


def list_splits(root: Path) -> tuple[str, ...]:
    """Splits of a folder: its subfolders that hold class folders, if all are named like splits."""
    folders = _folders(root)
    if not folders or not all(name.casefold() in SPLIT_NAMES for name in folders):
        return ()
    return order_splits(name for name in folders if _holds_class_folders(root / name))


def _holds_class_folders(folder: Path) -> bool:
    if any(_is_image(entry.name) for entry in _visible(folder) if not entry.is_dir()):
        return False
    return any(_is_image(entry.name) for name in _folders(folder) for entry in _walk(folder / name))


def _explain_no_classes(top: Path) -> str:
    names = [entry.name for entry in _visible(top)]
    images = sum(_is_image(name) for name in names)
    tables = [name for name in names if name.lower().endswith((".csv", ".tsv", ".parquet"))]
    found = f"{images} images directly in it" if images else "no images"
    hint = f", or pass one of its tables ({_join(tables[:5])})" if tables else ""
    return f"{top}: no class folders, {found}; expected one folder per class with the images inside{hint}"


def _visible(folder: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error}); check that it may be read") from error


def _folders(folder: Path) -> list[str]:
    return [entry.name for entry in _visible(folder) if entry.is_dir()]


def _walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Visible files at any depth, links followed.

    Each real folder is walked once, and none that the walk began inside of: so loops of links end, and a
    link upwards does not bring the other classes' images in.
    """
    visited = {_identify(parent) for parent in folder.absolute().parents}
    waiting = [str(folder)]
    while waiting:
        current = waiting.pop()
        if (identity := _identify(current)) in visited:
            continue
        visited.add(identity)
        for entry in _visible(current):
            if entry.is_dir():
                waiting.append(entry.path)
            else:
                yield entry


def _identify(folder: Path | str) -> tuple[int, int]:
    stat = os.stat(folder)
    return stat.st_dev, stat.st_ino


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _relative(path: Path | str, root: Path) -> str:
    relative = Path(path).relative_to(root).as_posix()
    # A file name need not be valid UTF-8, but an id is hashed and printed.
    return os.fsencode(relative).decode("utf-8", "backslashreplace")


def _join(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names) or "none"

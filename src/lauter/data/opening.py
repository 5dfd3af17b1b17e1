"""open_dataset: one door for class folders, tables, Hugging Face data, published sets and the digits."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lauter.data.dataset import Dataset, ImageFault
from lauter.data.images import MAX_PIXELS, MIN_SIDE
from lauter.data.loading import load_images
from lauter.data.sources import digits, folder, huggingface, named, table
from lauter.data.sources.columns import shorten
from lauter.data.sources.listing import Listing
from lauter.data.splitting import take_stratified
from lauter.errors import DataError

RESIDENT_LIMIT = 2 * 1024**3
"""Bytes of pixels up to which images are held in memory, by default."""


def open_dataset(
    spec: str | Path,
    *,
    split: str | None = None,
    label_column: str | None = None,
    truth_column: str | None = None,
    image_column: str | None = None,
    id_column: str | None = None,
    size: int | None = None,
    seed: int = 0,
    image_size: int | None = None,
    class_names: Sequence[str] | None = None,
    min_per_class: int = 2,
    resident_limit: int = RESIDENT_LIMIT,
    max_pixels: int = MAX_PIXELS,
    reduced_decoding: bool = False,
) -> Dataset:
    """Open labelled images, wherever they are.

    Images that cannot be read are left out, and those that had to be changed are noted: both stand in
    ``Dataset.faults``. Labels that are empty or -1 are unlabelled.

    Args:
        spec: a folder of class folders; a CSV, TSV or Parquet manifest; a folder of Parquet shards in the
            Hugging Face layout, or written by ``save_to_disk``; a published noisy set in the layout of its
            authors, told by its files: Clothing1M, Food-101N (and Food-101, its test set), ANIMAL-10N, and
            CIFAR's batches for Python, with CIFAR-N's file in their folder or beside it; 'digits' (write
            './digits' for a folder of that name); 'owner/name' or 'hf:name' on the Hugging Face Hub.
        split: which part, where the source has parts. Without it, tables and Hugging Face data sets give
            their only split, or train of several, and published sets give train; a folder of splits is
            refused.
        label_column: tables: the given labels, names or integers; by default a column called label, class,
            target, class_name or category (in any case), or the only ClassLabel. CIFAR: by default its own
            (fine) labels, else 'coarse_label' or a label of CIFAR-N, such as 'worse_label'.
        truth_column: tables: the true labels; values that are no class mean an image of no class. CIFAR: as
            label_column. Food-101N: 'verification_label' in its verified splits, which makes every image
            with a wrong label one of no class. In a folder of shards it may also stand in truth.parquet.
        image_column: tables: image paths (relative to the table's folder) or encoded images; by default the
            column of Hugging Face images, or one called image, img, path, file, filename, file_name,
            image_path or filepath.
        id_column: tables: ids; by default a column called id, else image paths, else row numbers.
        size: draw this many images, each class by its share (and at least ``min_per_class`` of each where
            that is possible); drawn before images are read, so unreadable ones are missing from it.
        seed: which images ``size`` draws.
        image_size: hold the images in memory at this size, short side resized and centre cropped. By
            default images of one square size up to 96 pixels keep it, and all others stream from where
            they are, with 224 as the size of their views.
        class_names: the classes and their order; labels must be among them.
        min_per_class: images that every class must have; 0 allows classes without any.
        resident_limit: bytes of pixels above which images stream whatever their size.
        max_pixels: refuse images with more pixels than this.
        reduced_decoding: decode JPEG images at a half, a quarter or an eighth of their resolution where a
            view needs no more. Much faster for photographs of many megapixels; pixels differ a little from
            those of an image that is decoded whole and then resized.

    Returns:
        The data set. Its ``source`` holds the arguments to open it again: the split and the image size are
        those chosen, the path is absolute, and where images stream ``resident_limit`` is 0, so that they
        stream again.

    Raises:
        DataError: nothing is there, it is not laid out as expected, arguments do not fit the source, or
            there are too few classes or images per class. The message says which and what to do.

    Example:
        >>> digits = open_dataset("digits", size=300)
        >>> len(digits), digits.num_classes, digits.images.read(0).shape
        (300, 10, (3, 16, 16))
    """
    where = _locate(spec)
    columns = table.Columns(image_column, label_column, truth_column, id_column)
    _check_arguments(where, columns, size, image_size, class_names, min_per_class, resident_limit, max_pixels)
    if where == "digits":
        dataset = digits.open_digits(split, image_size)
        _check_digit_names(class_names, dataset.class_names)
        split, image_size = split or digits.SPLITS[0], image_size or digits.DEFAULT_SIZE
        if size is not None:
            dataset = dataset.subset(take_stratified(dataset.labels, size, seed, lowest=min_per_class))
    else:
        listing = _list_source(where, split, columns, class_names)
        if len(listing) == 0:
            raise DataError(f"{where}: no images found{_count_faults(listing.faults)}")
        if size is not None:
            listing = listing.take(take_stratified(listing.labels, size, seed, lowest=min_per_class))
        loaded = load_images(
            listing,
            image_size=image_size,
            resident_limit=resident_limit,
            max_pixels=max_pixels,
            reduced=reduced_decoding,
        )
        kept = listing.take(loaded.kept)
        dataset = Dataset(
            name=kept.name,
            images=loaded.images,
            labels=kept.labels,
            class_names=kept.class_names,
            ids=kept.ids,
            true_labels=kept.true_labels,
            faults=(*listing.faults, *loaded.faults),
        )
        split, image_size = listing.split, loaded.image_size
    _check_dataset(where, dataset, min_per_class)
    arguments: dict[str, Any] = {
        "spec": where,
        "split": split,
        "label_column": label_column,
        "truth_column": truth_column,
        "image_column": image_column,
        "id_column": id_column,
        "size": size,
        "seed": seed,
        "image_size": image_size,
        "class_names": None if class_names is None else list(class_names),
        "min_per_class": min_per_class,
        "resident_limit": 0 if dataset.images.uniform is None else resident_limit,
        "max_pixels": max_pixels,
        "reduced_decoding": reduced_decoding,
    }
    return replace(dataset, source=arguments)


def available_splits(spec: str | Path) -> tuple[str, ...]:
    """Names of the splits that :func:`open_dataset` can open; empty where the source is one whole.

    Args:
        spec: as for :func:`open_dataset`.

    Returns:
        Split names, training before validation before test before others.

    Raises:
        DataError: nothing is there.
    """
    where = _locate(spec)
    path = Path(where)
    if where == "digits":
        return digits.SPLITS
    if path.is_file():
        return table.list_table_splits(path)
    if not path.is_dir():
        return huggingface.list_hub_splits(where)
    if huggingface.is_saved(path):
        return huggingface.list_saved_splits(path)
    if shards := table.find_shards(path):
        return tuple(shards)
    if (layout := named.find_layout(path)) is not None:
        return named.LAYOUTS[layout].list_splits(path)
    return folder.list_splits(path)


def find_files(data: Dataset) -> list[Path] | None:
    """The image files of a data set, as its source lists them now; no image is read.

    Args:
        data: as :func:`open_dataset` opened it, or some rows of that.

    Returns:
        [N] absolute paths; None where images (or some of them) lie inside other files, or where the source
        is no folder and no file here.

    Raises:
        DataError: the source cannot be listed any more, or lacks images that it had.
    """
    where = str(data.source.get("spec", ""))
    if where in ("", "digits") or not os.path.isabs(where):
        return None
    names = ("image_column", "label_column", "truth_column", "id_column")
    columns = table.Columns(*(data.source.get(name) for name in names))
    listing = _list_source(where, data.source.get("split"), columns, data.class_names)
    place = dict(zip(listing.ids.tolist(), listing.rows.tolist(), strict=True))
    if gone := [name for name in data.ids.tolist() if name not in place]:
        raise DataError(
            f"{where} lists {len(gone)} of the {len(data)} images no more, the first is {gone[0]!r}; "
            "open the data as it is now"
        )
    files: list[Path] = []
    for name in data.ids.tolist():
        cell = listing.cells[place[name]]
        if not isinstance(cell, Path):
            return None
        files.append(cell)
    return files


def _locate(spec: str | Path) -> str:
    """The spec in the form that opens again from anywhere: an absolute path, or a name as it is."""
    text = str(spec)
    if spec == "digits" or text.startswith(huggingface.HUB_PREFIX):
        return text
    path = Path(spec).expanduser()
    if path.exists():
        if path.is_file() and path.suffix.lower() not in table.TABLE_SUFFIXES:
            labels_alone = path.suffix in (".pt", ".npy")
            hint = "; for labels of CIFAR-N open the folder of CIFAR's batches, with label_column="
            raise DataError(
                f"{path}: expected a folder, or a table ending in .csv, .tsv or .parquet"
                f"{hint if labels_alone else ''}"
            )
        return os.path.abspath(path)
    if isinstance(spec, str) and huggingface.is_hub_name(text):
        return text
    raise DataError(
        f"{text!r}: no such folder or file; a data set on the Hugging Face Hub is written 'hf:name', "
        "and the embedded one 'digits'"
    )


def _list_source(
    where: str, split: str | None, columns: table.Columns, class_names: Sequence[str] | None
) -> Listing:
    path = Path(where)
    if path.is_file():
        if path.suffix.lower() == ".parquet":
            return table.list_parquet([path], path.stem, path.parent, split, columns, class_names)
        return table.list_csv(path, split, columns, class_names)
    if not path.is_dir():
        return huggingface.list_hub(where, split, columns, class_names)
    if huggingface.is_saved(path):
        return huggingface.list_saved(path, split, columns, class_names)
    if shards := table.find_shards(path):
        split = table.choose_split(tuple(shards), split, where)
        table.warn_of_missing_shards(shards[split])
        name = path.resolve().name
        return table.list_parquet(shards[split], name, path, None, columns, class_names, whole_split=split)
    if (layout := named.find_layout(path)) is not None:
        _refuse_columns(where, columns, layout, takes=named.LAYOUTS[layout].columns)
        return named.list_named(layout, path, split, columns, class_names)
    _refuse_columns(where, columns, "a folder of class folders")
    return folder.list_folder(path, split=split, class_names=class_names)


def _check_arguments(
    where: str,
    columns: table.Columns,
    size: int | None,
    image_size: int | None,
    class_names: Sequence[str] | None,
    min_per_class: int,
    resident_limit: int,
    max_pixels: int,
) -> None:
    lowest = (
        ("size", size, 1),
        ("image_size", image_size, MIN_SIDE),
        ("min_per_class", min_per_class, 0),
        ("resident_limit", resident_limit, 0),
        ("max_pixels", max_pixels, 1),
    )
    for name, value, low in lowest:
        if value is not None and value < low:
            raise DataError(f"{where}: {name} must be at least {low}, not {value}")
    if isinstance(class_names, str):
        raise DataError(
            f"{where}: class_names must be a sequence of names, not the one string {class_names!r}"
        )
    if class_names is not None and len(class_names) < 2:
        raise DataError(f"{where}: class_names must name 2 classes or more, not {list(class_names)}")
    if class_names is not None and len(set(class_names)) != len(class_names):
        raise DataError(f"{where}: class_names must differ from each other; got {shorten(class_names)}")
    if where == "digits":
        _refuse_columns(where, columns, "the embedded digits")


def _refuse_columns(where: str, columns: table.Columns, what: str, takes: Sequence[str] = ()) -> None:
    asked = [
        f"{name}_column={value!r}"
        for name, value in (
            ("label", columns.label),
            ("truth", columns.truth),
            ("image", columns.image),
            ("id", columns.id),
        )
        if value is not None and name not in takes
    ]
    if asked:
        own = f"only {' and '.join(f'{name}_column' for name in takes)}" if takes else "no columns"
        raise DataError(f"{where}: {', '.join(asked)} conflicts with {what}, which has {own}; leave it out")


def _check_digit_names(asked: Sequence[str] | None, names: tuple[str, ...]) -> None:
    if asked is not None and tuple(asked) != names:
        raise DataError(f"digits: class_names must be {shorten(names)}, not {shorten(asked)}; leave it out")


def _check_dataset(where: str, dataset: Dataset, min_per_class: int) -> None:
    if len(dataset) == 0:
        raise DataError(f"{where}: no image can be used{_count_faults(dataset.faults)}")
    if dataset.num_classes < 2:
        raise DataError(
            f"{where}: {dataset.num_classes} class ({shorten(dataset.class_names) or 'no labels'}); "
            "expected two or more"
        )
    counts = np.bincount(dataset.labels[dataset.labelled], minlength=dataset.num_classes)
    small = [
        (name, int(count))
        for name, count in zip(dataset.class_names, counts, strict=True)
        if count < min_per_class
    ]
    if small:
        listed = ", ".join(f"{name!r} has {count}" for name, count in small[:10]) + (
            ", ..." if small[10:] else ""
        )
        raise DataError(
            f"{where}: {len(small)} classes have fewer than {min_per_class} images: {listed}"
            f"{_count_faults(dataset.faults)}; remove or merge them, or pass min_per_class="
            f"{min(count for _, count in small)}"
        )


def _count_faults(faults: Sequence[ImageFault]) -> str:
    """The faults that left images out, counted by kind, with one example each, for a message."""
    first: dict[str, ImageFault] = {}
    counts: dict[str, int] = {}
    for fault in faults:
        if fault.dropped:
            first.setdefault(fault.fault, fault)
            counts[fault.fault] = counts.get(fault.fault, 0) + 1
    parts = [f"{count} {kind} ({first[kind].id}: {first[kind].detail})" for kind, count in counts.items()]
    return f" (left out: {'; '.join(parts)})" if parts else ""

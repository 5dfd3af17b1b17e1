"""Text files of images and labels, one a line, as published data sets bring them along."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from lauter.data.dataset import ImageFault, Int64s
from lauter.errors import DataError


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a text file and their numbers, counted from 1; empty lines are passed over.

    Args:
        path: the file, UTF-8.

    Yields:
        Number and text of a line, without the spaces around it.

    Raises:
        DataError: the file is missing, or is no text.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if text := line.strip():
                    yield number, text
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; unpack the data set whole, or open another split") from error
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error}); fetch it again") from error


def read_names(path: Path, header: str = "") -> tuple[str, ...]:
    """Class names, one a line, in the order of their labels.

    Args:
        path: the file.
        header: what its first line says where that is no name.

    Raises:
        DataError: the file is missing, or a name stands there twice.
    """
    first: dict[str, int] = {}
    for number, name in read_lines(path):
        if number == 1 and name == header:
            continue
        if name in first:
            raise DataError(f"{path}, line {number}: the class {name!r} stands in line {first[name]} already")
        first[name] = number
    return tuple(first)


def read_keys(path: Path, header: str = "") -> tuple[dict[str, int], tuple[ImageFault, ...]]:
    """Images of a list, each with the line that it stands in.

    Args:
        path: the file, one image a line; what stands behind a tab is not read.
        header: what its first line says where that is no image.

    Returns:
        Line by image, in the file's order, and a fault for every line that repeats an image.

    Raises:
        DataError: the file is missing.
    """
    lines: dict[str, int] = {}
    repeated = []
    for number, line in read_lines(path):
        key = line.partition("\t")[0].rstrip()
        if number == 1 and key == header:
            continue
        if lines.setdefault(key, number) != number:
            detail = f"line {number} of {path.name} lists it again"
            repeated.append(ImageFault(key, "repeated", detail, True))
    return lines, tuple(repeated)


def read_values(path: Path, count: int, header: str = "") -> dict[str, int]:
    """Images with a whole number each: a label, or a yes or no.

    Args:
        path: the file; a line says an image, a space or tab, and its value.
        count: values are 0..count-1.
        header: how its first line begins where that is no image.

    Returns:
        Value by image, in the file's order.

    Raises:
        DataError: the file is missing, a line says something else, a value is out of its range, or an image
            has two different ones; names the line.
    """
    numbers = {str(number): number for number in range(count)}
    values: dict[str, int] = {}
    for number, line in read_lines(path):
        if number == 1 and header and line.startswith(header):
            continue
        key, text = line.rsplit(maxsplit=1) if len(line.split()) > 1 else (line, "")
        value = numbers.get(text)
        if value is None:
            raise DataError(
                f"{path}, line {number}: expected an image and one of 0..{count - 1}, not {line!r}"
            )
        if values.setdefault(key, value) != value:
            raise DataError(
                f"{path}, line {number}: {key!r} has the value {value} here and {values[key]} before; "
                "remove the line that is wrong"
            )
    return values


def match_labels(keys: Mapping[str, int], labels: Mapping[str, int], listed: Path, labelled: Path) -> Int64s:
    """Labels of listed images.

    Args:
        keys: line by image, from :func:`read_keys`.
        labels: label by image, from :func:`read_values`.
        listed: the file of ``keys``, for messages.
        labelled: the file of ``labels``, for messages.

    Returns:
        [N] labels, in the order of ``keys``.

    Raises:
        DataError: images without a label; counts them and names the first with its line.
    """
    if missing := [key for key in keys if key not in labels]:
        raise DataError(
            f"{listed}, line {keys[missing[0]]}: {missing[0]!r} has no label in {labelled.name}, and so "
            f"{len(missing):,} of {len(keys):,} images; fetch both files from the same copy of the data set"
        )
    return np.fromiter((labels[key] for key in keys), dtype=np.int64, count=len(keys))

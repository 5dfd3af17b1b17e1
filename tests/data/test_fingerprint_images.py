"""The hash of ids and pictures: labels are not part of it, everything that tells pictures apart is."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lauter.data import Dataset, ResidentImages, open_dataset
from lauter.data.sources import table
from lauter.errors import DataError

WritePhotos = Callable[..., Path]


def make_resident() -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)
    return Dataset("d", ResidentImages(pixels), np.arange(6) % 2, ("a", "b"), np.array(list("uvwxyz")))


def open_streamed(root: Path, **options: Any) -> Dataset:
    return open_dataset(root, resident_limit=0, min_per_class=0, **options)


def test_labels_and_names_do_not_matter() -> None:
    data = make_resident()
    first = data.fingerprint_images()
    assert len(first) == 16
    changed = replace(data.with_labels(1 - data.labels), name="e", class_names=("c", "d"))
    assert changed.fingerprint_images() == first
    assert changed.fingerprint() != data.fingerprint()
    assert data.with_truth(data.labels).fingerprint_images() == first


def test_pixels_ids_and_order_do() -> None:
    data = make_resident()
    pixels = np.array(data.images.uniform)
    pixels[5, 2, 7, 7] ^= 1
    others = [
        replace(data, images=ResidentImages(pixels)),
        replace(data, ids=np.array(list("uvwxya"))),
        data.subset(np.arange(5)),
        data.subset(np.arange(6)[::-1]),
        replace(data, images=ResidentImages(np.array(data.images.uniform).reshape(6, 3, 16, 4))),
    ]
    assert len({data.fingerprint_images(), *(other.fingerprint_images() for other in others)}) == 6


def test_a_file_that_changed_is_seen_without_decoding_it(tmp_path: Path, write_photos: WritePhotos) -> None:
    root = write_photos(tmp_path / "photos", count=3)
    data = open_streamed(root)
    first = data.fingerprint_images()
    assert open_streamed(root).fingerprint_images() == first
    assert data.with_labels(data.labels * 0).fingerprint_images() == first
    rows = np.array([4, 0])
    some = data.subset(rows).fingerprint_images()
    changed = root / str(data.ids[0])
    about = changed.stat()
    os.utime(changed, ns=(about.st_atime_ns, about.st_mtime_ns + 1))
    assert open_streamed(root).fingerprint_images() != first
    assert open_streamed(root).subset(rows).fingerprint_images() != some
    changed.unlink()
    with pytest.raises(DataError, match=f"(?s)missing.*{data.ids[0]}"):
        data.fingerprint_images()


@pytest.mark.parametrize("stays", [False, True])
def test_images_inside_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stays: bool) -> None:
    """In memory every byte counts; images that stay in their file are told by that file."""
    if stays:
        monkeypatch.setattr(table, "ENCODED_LIMIT", 0)

    def write(shade: int) -> Path:
        cells = []
        for row in range(4):
            Image.new("RGB", (8, 8), (shade if row == 3 else 9, 0, 0)).save(tmp_path / "x.png")
            cells.append((tmp_path / "x.png").read_bytes())
        path = tmp_path / "images.parquet"
        pq.write_table(pa.table({"image": cells, "label": ["a", "b", "a", "b"]}), path)
        os.utime(path, ns=(0, shade))
        return path

    first = open_streamed(write(10)).fingerprint_images()
    assert open_streamed(write(10)).fingerprint_images() == first
    assert open_streamed(write(11)).fingerprint_images() != first


def test_of_unknown_sources_the_ids_count() -> None:
    class Unknown:
        uniform = None

        def __len__(self) -> int:
            return 6

        def read(self, index: int) -> Any:
            raise AssertionError("a fingerprint decodes nothing")

    data = replace(make_resident(), images=Unknown())
    assert data.fingerprint_images() == data.fingerprint_images()
    assert data.subset(np.arange(6)).fingerprint_images() != ""
    assert replace(data, ids=np.array(list("uvwxya"))).fingerprint_images() != data.fingerprint_images()

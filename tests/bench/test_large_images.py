"""The bench of large images: layouts, ways, records; no claim about speed."""

import io
import mmap
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lauter.bench import large_images
from lauter.bench.large_images import (
    WAYS,
    Photos,
    lay_out_photos,
    measure_large_images,
    measure_peak,
    summarise,
)
from lauter.bench.memory import read_tree_memory
from lauter.errors import DataError, RunError


def encode(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (40, 50 + number, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for split, numbers in (("train", range(4)), ("validation", range(4, 7))):
        cells = [{"bytes": encode(number), "path": None} for number in numbers]
        pq.write_table(pa.table({"image": pa.array(cells)}), folder / f"{split}-00000-of-00001.parquet")
    return folder


def test_photographs_are_laid_out_as_they_are(source: Path, tmp_path: Path) -> None:
    for _ in range(2):  # a second time they are there already
        photos = lay_out_photos(source, tmp_path / "work", copies=2)
        assert photos == Photos(tmp_path / "work" / "photos", tmp_path / "work" / "photos.parquet", 14)
    files = sorted(photos.folder.rglob("*.jpg"))
    expected = sorted(encode(number) for number in range(7) for _ in range(2))
    assert sorted(file.read_bytes() for file in files) == expected
    cells = pq.read_table(photos.shard).column("image").to_pylist()
    assert sorted(cell["bytes"] for cell in cells) == expected
    assert pq.read_metadata(photos.shard).num_row_groups == 2


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_every_way_is_measured(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_images, "PAUSE", 0)
    records = measure_large_images(source, tmp_path / "work", repeats=1, workers=1, memory=False)
    assert {record.suite for record in records} == {"speed"}
    assert {record.data for record in records} == {"28 photographs, 224 px, 1 workers"}
    values = {(record.method, record.metric): record.value for record in records}
    for way in WAYS:
        assert values[f"large images, {way}", "images_per_second"] > 0
    assert len(values) == len(records) == 3 * 3 + 2


def test_peak_memory_is_that_of_another_process(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = lay_out_photos(source, tmp_path / "work", copies=1)
    peak = measure_peak("folder", photos, 1)
    # Five chunks of seven images and one batch are the least of it.
    np.testing.assert_array_less(1.0, peak)
    monkeypatch.setattr(large_images.sys, "executable", "false")
    with pytest.raises(RunError, match="epoch of folder whose memory was to be measured failed: it said"):
        measure_peak("folder", photos, 1)


def test_ratios_are_of_medians() -> None:
    rates = {"folder": [30.0, 10.0, 20.0], "parquet": [5.0, 6.0, 7.0], "reference": [9.0, 10.0, 100.0]}
    records = summarise("some", rates, {"folder": 3.0})
    values = {(record.method, record.metric): record.value for record in records}
    np.testing.assert_allclose(values["large_images_over_reference", "ratio"], 2.0)
    np.testing.assert_allclose(values["large_images_parquet_over_reference", "ratio"], 0.6)
    np.testing.assert_allclose(values["large images, folder", "images_per_second_low"], 10)
    np.testing.assert_allclose(values["large images, folder", "images_per_second_high"], 30)
    np.testing.assert_allclose(values["large images, folder", "peak_mib"], 3)


def test_no_photographs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no Parquet shards"):
        lay_out_photos(tmp_path, tmp_path / "work")
    pq.write_table(pa.table({"image": pa.array([b""])}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match="image 0 of split 'train' is no encoded image"):
        lay_out_photos(tmp_path, tmp_path / "work")


def test_memory_of_this_process_is_that_of_its_pages() -> None:
    before = read_tree_memory(os.getpid())
    with mmap.mmap(-1, 32 * 2**20) as block:  # from the system, not from what numpy had before
        for page in range(0, len(block), mmap.PAGESIZE):
            block[page] = 1
        np.testing.assert_allclose(read_tree_memory(os.getpid()) - before, 32, atol=4)

"""Memory: what is told of it, and epochs over data far larger than what is allowed."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lauter.data.memory import available_memory
from lauter.data.sources.cells import ParquetCells

PHOTOS, LIMIT_MIB = 200, 48
"""Of 640 x 480 pixels, 0.9 MiB when decoded; and what a process may take beside its libraries."""


def test_the_smaller_of_machine_and_container_counts(tmp_path: Path) -> None:
    meminfo, cgroup = tmp_path / "meminfo", tmp_path / "cgroup"
    assert available_memory(meminfo, cgroup) is None
    meminfo.write_text("MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable: 5000 kB\n")
    assert available_memory(meminfo, cgroup) == 5000 * 1024
    (cgroup / "memory").mkdir(parents=True)
    (cgroup / "memory.max").write_text("max\n")
    (cgroup / "memory.current").write_text("4096\n")
    assert available_memory(meminfo, cgroup) == 5000 * 1024
    (cgroup / "memory.max").write_text("100000\n")
    assert available_memory(meminfo, cgroup) == 100000 - 4096
    (cgroup / "memory/memory.limit_in_bytes").write_text("1000\n")
    (cgroup / "memory/memory.usage_in_bytes").write_text("2000\n")
    assert available_memory(meminfo, cgroup) == 0


def encode_noise(seed: int, height: int = 480, width: int = 640) -> bytes:
    """A JPEG image of several hundred kilobytes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is on what Linux counts as data")
@pytest.mark.parametrize(("layout", "workers"), [("folder", 0), ("parquet", 1)])
def test_an_epoch_over_more_than_the_memory(layout: str, workers: int, tmp_path: Path) -> None:
    """Decoded, the images take three times what may be taken, and encoded more than that in Parquet."""
    cells = [encode_noise(seed) for seed in range(4)]
    assert PHOTOS * 640 * 480 * 3 > 3 * LIMIT_MIB * 2**20
    if layout == "folder":
        for number in range(PHOTOS):
            path = tmp_path / ("cat", "dog")[number % 2] / f"{number}.jpg"
            path.parent.mkdir(exist_ok=True)
            if number < 4:
                path.write_bytes(cells[number])
            else:
                os.link(tmp_path / ("cat", "dog")[number % 2] / f"{number % 4}.jpg", path)
    else:
        assert PHOTOS * len(cells[0]) > LIMIT_MIB * 2**20
        for shard in range(2):
            rows = [{"bytes": cells[number % 4], "path": None} for number in range(PHOTOS // 2)]
            table = pa.table(
                {"image": pa.array(rows), "label": [number % 2 for number in range(PHOTOS // 2)]}
            )
            path = tmp_path / f"train-{shard:05d}-of-00002.parquet"
            pq.write_table(table, path, row_group_size=10, use_dictionary=False)
    script = Path(__file__).with_name("stream_under_limit.py")
    words = [sys.executable, str(script), str(tmp_path), str(LIMIT_MIB), str(workers)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["refused", str(PHOTOS)]


def test_row_groups_are_kept_by_their_bytes(tmp_path: Path) -> None:
    cells = [bytes([number]) * 1000 for number in range(30)]
    path = tmp_path / "images.parquet"
    pq.write_table(pa.table({"image": pa.array(cells)}), path, row_group_size=5)
    parquet = ParquetCells([path, path], "image", tmp_path)
    parquet.kept_bytes = 11_000
    assert len(parquet) == 60
    for row in [0, 59, 31, 7, 4, 12, 29, 30, 0]:
        assert parquet[row] == cells[row % 30]
        assert sum(size for _, size in parquet._groups.values()) == parquet._group_bytes <= 11_000
    assert list(parquet._groups) == [6, 0]  # of 5 KB each: two of them
    parquet.kept_bytes = 0
    assert parquet[17] == cells[17]
    assert list(parquet._groups) == [3]

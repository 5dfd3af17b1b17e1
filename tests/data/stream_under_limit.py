"""Go through one epoch of photographs with little memory; run by test_memory.py in a process of its own."""

import resource
import sys
from pathlib import Path

import numpy as np

from lauter.data import open_dataset
from lauter.data.batches import ImageBatches
from lauter.data.dataset import ResidentImages
from lauter.data.sources import table
from lauter.data.sources.cells import ParquetCells
from lauter.data.views import supervised_view


def main(source: str, mib: int, workers: int) -> None:
    table.ENCODED_LIMIT = 0  # as if the column were larger than the 2 GiB that may be held
    ParquetCells.kept_bytes = 8 * 2**20
    recipe = supervised_view("objects", 224)
    # Libraries take what they need once before the limit is drawn.
    warm = ResidentImages(np.zeros((2, 3, 300, 300), dtype=np.uint8))
    list(ImageBatches(warm, np.arange(2), 2, (recipe,), 224).epoch(0))
    data = open_dataset(source)
    data.images.read(0)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    taken = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:"))
    limit = taken * 1024 + mib * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        np.ones(2 * mib * 2**20, dtype=np.uint8)
    except MemoryError:
        print("refused")
    batches = ImageBatches(data.images, np.arange(len(data)), 16, (recipe,), 224, workers=workers)
    print(sum(len(batch.images) for batch in batches.epoch(0)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

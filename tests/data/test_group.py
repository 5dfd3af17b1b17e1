"""Parts of a batch: what one of several processes reads and shows, beside what one process has."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from lauter.data.batches import FeatureBatches, ImageBatches
from lauter.data.dataset import ResidentImages
from lauter.data.group import ALONE, Group
from lauter.data.views import ViewRecipe
from lauter.training.process_group import ProcessGroup

COUNT, SIDE = 23, 8


class Streamed:
    """Pixels that are read one by one; remembers which."""

    def __init__(self, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
        self.pixels, self.uniform, self.seen = pixels, None, list[int]()

    def __len__(self) -> int:
        return len(self.pixels)

    def read(self, index: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        self.seen.append(index)
        return np.asarray(self.pixels[index])


def make_pixels() -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (COUNT, 3, SIDE, SIDE), dtype=np.uint8)


def make_batches(group: Group, images: Streamed | ResidentImages | None = None) -> ImageBatches:
    recipe = ViewRecipe(pad=1, flip=0.5)
    chosen = images or ResidentImages(make_pixels())
    return ImageBatches(chosen, np.arange(COUNT), 8, (recipe, recipe), SIDE, seed=3, group=group)


def processes(size: int) -> list[ProcessGroup]:
    """Places that never talk."""
    return [ProcessGroup(rank, size, torch.device("cpu")) for rank in range(size)]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 9])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_parts_are_contiguous_even_and_never_empty(count: int, size: int) -> None:
    parts = [np.arange(count)[group.part(count)] for group in processes(size)]
    whole = parts[:count]  # beyond, the first row stands in for nothing
    assert np.concatenate([np.arange(0), *whole]).tolist() == list(range(count))
    lengths = [len(part) for part in whole]
    assert max(lengths, default=0) - min(lengths, default=0) <= 1
    assert all(part.tolist() == [0] for part in parts[count:] if count)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("streamed", [False, True])
def test_processes_show_together_what_one_shows(size: int, streamed: bool) -> None:
    sources = [Streamed(make_pixels()) if streamed else None for _ in range(size)]
    pairs = zip(processes(size), sources, strict=True)
    shared = [list(make_batches(group, source).epoch(1, 1)) for group, source in pairs]
    for whole, *parts in zip(make_batches(ALONE).epoch(1, 1), *shared, strict=True):
        for part in parts:
            torch.testing.assert_close(part.index, whole.index)
            assert len(part) == len(whole)
        torch.testing.assert_close(torch.cat([part.own for part in parts]), whole.index)
        for number, view in enumerate(whole.views):
            torch.testing.assert_close(
                torch.cat([part.views[number] for part in parts]), view, rtol=0, atol=0
            )
    if streamed:  # without duplicates or gaps, and nobody reads for another
        read = [source.seen for source in sources if source is not None]
        later = make_batches(ALONE).epoch(1, 1)
        assert sorted(row for rows in read for row in rows) == sorted(
            row for batch in later for row in batch.index.tolist()
        )


def test_one_process_has_everything_and_gathers_nothing() -> None:
    (batch, *_) = make_batches(ALONE).epoch(0)
    values = torch.rand(len(batch), 2, requires_grad=True)
    assert batch.own is batch.index
    assert batch.take_part(values) is values
    assert batch.gather(values)[0] is values
    assert ALONE.agree(True, False) == (True, False)
    assert ALONE.lead(lambda: 3) == ALONE.tell(3) == 3
    assert ALONE.collect("a") == ["a"]
    with ALONE.same_draws():
        ALONE.wait()


def test_rows_of_stored_features_are_not_shared_out() -> None:
    (batch, *_) = FeatureBatches(torch.rand(5, 2), np.arange(5), 3).epoch(0)
    assert batch.group is ALONE
    assert len(batch.views[0]) == len(batch)


def test_own_rows_stay_with_their_views_where_there_are_fewer_images_than_processes() -> None:
    group: Group = processes(5)[4]
    images = ResidentImages(make_pixels())
    batches = ImageBatches(images, np.arange(3), 3, (ViewRecipe(),), SIDE, group=group)
    (batch,) = batches.epoch(0)
    shown: Sequence[Tensor] = batch.views
    torch.testing.assert_close(shown[0], torch.from_numpy(images.pixels[batch.own.numpy()]))
    torch.testing.assert_close(batch.own, batch.index[:1])

"""The corrected data set as a manifest: which images, under which labels, and that it opens as that."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lauter
from lauter.auditing.corrected import write_corrected
from lauter.data import Dataset, write_parquet
from lauter.data.dataset import UNLABELLED
from lauter.data.opening import find_files
from lauter.errors import DataError

NAMES = ("cat", "dog", "train")


def make_table(data: Dataset) -> pd.DataFrame:
    """The first image relabelled, the second dropped, the third asked about."""
    names = np.array([*data.class_names, None], dtype=object)
    given = names[data.labels]
    table = pd.DataFrame({"id": data.ids, "given": given, "verdict": "keep", "suggested": given})
    table.loc[0, ["verdict", "suggested"]] = ["relabel", "dog"]
    table.loc[[1, 2], "verdict"] = ["drop", "ask"]
    return table.assign(p_given_right=np.linspace(0, 1, len(data)))


@pytest.fixture
def as_csv(photos: Path, tmp_path: Path) -> Dataset:
    """The photos by a table with keys, beside a folder of links: paths relative to the table."""
    os.symlink(photos, tmp_path / "pictures")
    files = sorted((tmp_path / "pictures").rglob("*.png"))
    table = pd.DataFrame(
        {
            "picture": [str(file.relative_to(tmp_path)) for file in files],
            "key": [f"k{number:02}" for number in range(len(files))],
            "kind": [file.parent.name for file in files],
        }
    )
    table.loc[[5, 6], "kind"] = ""
    table.to_csv(tmp_path / "scans.csv", index=False)
    return lauter.open_dataset(
        tmp_path / "scans.csv", image_column="picture", id_column="key", label_column="kind"
    )


@pytest.mark.parametrize("name", ["manifest.csv", "manifest.parquet"])
@pytest.mark.parametrize("kind", ["folder", "table", "streamed"])
def test_a_manifest_opens_as_the_corrected_data(
    name: str, kind: str, photos: Path, as_csv: Dataset, tmp_path: Path
) -> None:
    opened = {
        "folder": lambda: lauter.open_dataset(photos),
        "streamed": lambda: lauter.open_dataset(photos, resident_limit=0),
        "table": lambda: as_csv,
    }
    data = opened[kind]()
    table = make_table(data)
    lauter.write_corrected(tmp_path / "corrected", data, table)
    again = lauter.open_dataset(tmp_path / "corrected" / name)
    rows = np.array([row for row in range(len(data)) if row != 1])
    expected = data.labels.copy()
    expected[0] = 1
    assert again.class_names == data.class_names == NAMES
    assert again.ids.tolist() == data.ids[rows].tolist()
    np.testing.assert_array_equal(again.labels, expected[rows])
    for row in (0, 1, 40):
        np.testing.assert_array_equal(again.images.read(row), data.images.read(int(rows[row])))


def test_the_columns_by_plain_loops(as_csv: Dataset, tmp_path: Path) -> None:
    table = make_table(as_csv).drop(index=41)
    with pytest.warns(UserWarning, match="1 of the 42 images are not in the label table"):
        files = write_corrected(tmp_path / "corrected", as_csv, table)
    assert files == (tmp_path / "corrected" / "manifest.csv", tmp_path / "corrected" / "manifest.parquet")
    found = pd.read_parquet(files[1])
    assert list(found.columns) == ["id", "path", "label", "given", "verdict", "p_given_right"]
    expected = []
    for row, label in enumerate(as_csv.labels):
        if row == 1:
            continue
        given = None if label == UNLABELLED else NAMES[label]
        verdict = {0: "relabel", 2: "ask", 41: ""}.get(row, "keep")
        belief = None if row == 41 else row / 41
        expected.append((f"k{row:02}", "dog" if row == 0 else given, given, verdict, belief))
    rows = found.astype(object).where(found.notna(), None)
    assert rows[["id", "label", "given", "verdict"]].values.tolist() == [
        list(cells[:4]) for cells in expected
    ]
    np.testing.assert_allclose(
        found["p_given_right"], [np.nan if cells[4] is None else cells[4] for cells in expected], rtol=1e-12
    )
    assert all(Path(path).is_absolute() and Path(path).is_file() for path in found["path"])


def test_manifests_are_replaced_and_the_table_is_not_touched(photos: Path, tmp_path: Path) -> None:
    data = lauter.open_dataset(photos)
    table = make_table(data)
    before = table.copy()
    write_corrected(tmp_path, data, table)
    write_corrected(tmp_path, data, table.assign(verdict="keep"))
    assert len(pd.read_csv(tmp_path / "manifest.csv")) == 42
    pd.testing.assert_frame_equal(table, before)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["manifest.csv", "manifest.parquet"]


def test_images_inside_other_files_are_listed_by_id(photos: Path, tmp_path: Path) -> None:
    write_parquet(lauter.open_dataset(photos), tmp_path / "shards")
    data = lauter.open_dataset(tmp_path / "shards")
    assert find_files(data) is None
    first, _ = write_corrected(tmp_path / "corrected", data, make_table(data))
    found = pd.read_csv(first)
    assert list(found.columns) == ["id", "label", "given", "verdict", "p_given_right"]
    assert found["id"].tolist() == [name for row, name in enumerate(data.ids) if row != 1]
    digits = lauter.open_dataset("digits", size=50)
    assert find_files(digits) is None
    assert find_files(dataclasses.replace(data, source={})) is None


def test_files_are_found_for_any_rows_in_their_order(photos: Path, as_csv: Dataset) -> None:
    data = lauter.open_dataset(photos)
    rows = np.array([30, 2])
    assert find_files(data.subset(rows)) == [photos / str(data.ids[row]) for row in rows]
    found = find_files(as_csv.subset(rows))
    assert found is not None
    assert [path.resolve() for path in found] == find_files(data.subset(rows))


def test_images_that_are_gone_are_said(write_photos: Callable[..., Path], tmp_path: Path) -> None:
    data = lauter.open_dataset(write_photos(tmp_path / "photos", count=3))
    (tmp_path / "photos" / "cat" / "00.png").unlink()
    with pytest.raises(DataError, match=r"lists 1 of the 8 images no more, the first is 'cat/00\.png'"):
        write_corrected(tmp_path / "corrected", data, make_table(data))
    assert not (tmp_path / "corrected").exists()


def test_a_file_name_that_is_no_text_is_named(write_photos: Callable[..., Path], tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", count=3)
    strange = os.fsencode(photos / "dog") + b"/caf\xe9.png"
    os.rename(photos / "dog" / "01.png", strange)
    data = lauter.open_dataset(photos)
    with pytest.raises(DataError, match="1 file names are no UTF-8 and cannot stand in a manifest"):
        write_corrected(tmp_path / "corrected", data, make_table(data))
    assert not (tmp_path / "corrected").exists()

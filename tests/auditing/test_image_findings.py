"""Findings about pictures: columns for the label table, leaks to other data sets, groups for people."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lauter.auditing.image_findings import ImageFindings, describe_groups, inspect_images
from lauter.data import open_dataset
from lauter.data.dataset import Dataset, ImageFault, ResidentImages
from lauter.errors import DataError

Array = np.ndarray[Any, Any]


def draw_pictures(count: int, seed: int = 0) -> Array:
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 3, 8, 8))
    return np.repeat(np.repeat(coarse, 4, 2), 4, 3).astype(np.uint8)


def make_data(pixels: Array, labels: list[int], name: str = "pets") -> Dataset:
    return Dataset(
        name,
        ResidentImages(pixels),
        np.array(labels),
        ("cat", "dog", "emu"),
        np.array([f"{name}/{row}.png" for row in range(len(pixels))]),
        faults=(ImageFault(f"{name}/gone.png", "missing", "no such file", True),),
    )


@pytest.fixture
def data() -> Dataset:
    """Eight pictures: 0, 2 and 5 are the same, 3 and 4 nearly so, 6 is blank, 1 and 7 stand alone."""
    pixels = draw_pictures(8)
    pixels[[2, 5]] = pixels[0]
    pixels[4] = pixels[3] // 2 + 60
    pixels[6] = 255
    return make_data(pixels, [0, 1, 0, 2, 1, -1, 0, 1])


def test_findings_by_hand(data: Dataset) -> None:
    told: list[tuple[int, int]] = []
    findings = inspect_images(data, progress=lambda done, total: told.append((done, total)))
    assert findings.groups.group.tolist() == [0, -1, 0, 1, 1, 0, -1, -1]
    assert findings.conflicts.tolist() == [False, False, False, True, True, False, False, False]
    assert findings.leaks.tolist() == [""] * 8
    assert [(fault.id, fault.fault, fault.dropped) for fault in findings.faults] == [
        ("pets/gone.png", "missing", True),
        ("pets/6.png", "blank", False),
    ]
    columns = findings.to_columns()
    assert columns["near_duplicate_group"].tolist() == [0, -1, 0, 1, 1, 0, -1, -1]
    assert columns["leak"].tolist() == [""] * 8
    assert columns["faults"].tolist() == ["", "", "", "", "", "", "blank", ""]
    assert findings.summarise() == {
        "near_duplicate_groups": 2,
        "near_duplicates": 5,
        "conflicts": 2,
        "leaks": 0,
        "faults": {"blank": 1, "missing": 1},
    }
    assert told[-1] == (8, 8)
    assert set(findings.seconds) == {"pixels", "duplicates"}


def test_leaks_to_data_beside_and_between_splits(data: Dataset) -> None:
    pixels = draw_pictures(4, seed=9)
    pixels[1] = data.images.read(1)
    pixels[3] = data.images.read(4)
    test = make_data(pixels, [0, 0, 0, 0], "test")
    findings = inspect_images(data, beside={"test": test})
    expected = ["", "test/1.png", "", "test/3.png", "test/3.png", "", "", ""]
    assert findings.leaks.tolist() == expected
    assert findings.leak_splits.tolist() == ["test" if leak else "" for leak in expected]
    # A twin beside makes no group: groups are among the images themselves.
    assert findings.groups.group.tolist() == [0, -1, 0, 1, 1, 0, -1, -1]
    splits = ["train"] * 4 + ["val"] * 4
    within = inspect_images(data, splits=splits)
    rows = [5, None, 5, 4, 3, 0, None, None]
    assert within.leaks.tolist() == ["" if row is None else f"pets/{row}.png" for row in rows]
    assert within.leak_splits.tolist() == ["val", "", "val", "val", "train", "train", "", ""]


def test_features_are_of_the_data_alone() -> None:
    pixels = draw_pictures(24)
    pixels[4] = pixels[3] // 2 + 60
    pixels[8] = pixels[7] // 2 + 60
    data = make_data(pixels, [0] * 24)
    test = make_data(pixels[3:4], [0], "test")
    features = np.random.default_rng(0).standard_normal((24, 16)).astype(np.float32)
    features[8] = features[7]
    findings = inspect_images(data, beside={"test": test}, features=features)
    assert np.flatnonzero(findings.groups.group >= 0).tolist() == [7, 8]
    # The picture beside is that of row 3, of which the features are known, and not those of row 4.
    assert np.flatnonzero(findings.leaks == "test/0.png").tolist() == [3]


def test_groups_for_people(data: Dataset) -> None:
    table = describe_groups(inspect_images(data), data)
    assert table["group"].tolist() == [1, 0]
    assert table["size"].tolist() == [2, 3]
    assert table["labels"].tolist() == ["emu 1, dog 1", "cat 2"]
    assert table["conflict"].tolist() == [True, False]
    assert table["centre"].tolist() == ["pets/3.png", "pets/0.png"]
    assert table["members"].tolist() == [
        ["pets/3.png", "pets/4.png"],
        ["pets/0.png", "pets/2.png", "pets/5.png"],
    ]
    np.testing.assert_allclose(table["lowest_similarity"][1], 1)
    alone = make_data(draw_pictures(3), [0, 1, 2])
    assert describe_groups(inspect_images(alone), alone).empty


def test_no_images_and_one() -> None:
    for count in (0, 1):
        few = make_data(draw_pictures(2)[:count], [0] * count)
        findings = inspect_images(few, beside={"test": make_data(draw_pictures(2)[:count], [0] * count, "t")})
        assert findings.leaks.tolist() == ["t/0.png"] * count
        assert len(findings.groups.centres) == 0


def test_streamed_pictures_of_any_size(tmp_path: Path, photo: Any) -> None:
    for label, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        for number in range(4):
            photo(label, number, 60 + number, 50).save(tmp_path / name / f"{number}.png")
    photo(0, 1, 61, 50).save(tmp_path / "b" / "copy.png")
    data = open_dataset(tmp_path)
    assert data.images.uniform is None
    findings = inspect_images(data)
    one, other = data.ids.tolist().index("a/1.png"), data.ids.tolist().index("b/copy.png")
    assert findings.groups.group[one] == findings.groups.group[other] >= 0
    assert findings.conflicts[[one, other]].all()


def test_a_fault_told_twice_counts_once(data: Dataset) -> None:
    told = ImageFault("pets/6.png", "blank", "as opened", False)
    findings = inspect_images(Dataset(**{**vars(data), "faults": (told,)}))
    assert [fault for fault in findings.faults if fault.id == "pets/6.png"] == [told]


def test_twins_that_people_named_are_found_among_strangers(shared_data: Any) -> None:
    """Pairs of CIFAR-10's test part that Barz and Denzler (2020), arXiv 1902.00423, judged to be one shot."""
    data = open_dataset(shared_data("cifar10"), split="test", label_column="label")
    named = [(2801, 5976), (3033, 6086), (3813, 4881), (3723, 4766), (3045, 4259), (2369, 2911)]
    named += [(2485, 6192), (4039, 5606), (6967, 9937), (8081, 9550), (6639, 7894), (8214, 9696)]
    rows = np.unique([*np.ravel(named), *range(700)])
    findings = inspect_images(data.subset(rows))
    group = dict(zip(rows.tolist(), findings.groups.group.tolist(), strict=True))
    found = [one for one, other in named if group[one] == group[other] >= 0]
    assert len(found) >= 9
    assert sum(number >= 0 for number in group.values()) <= 2 * len(named) + 6
    np.testing.assert_allclose(findings.bar, 0.7)


def test_bad_input(data: Dataset) -> None:
    with pytest.raises(DataError, match="2 splits for 8 images"):
        inspect_images(data, splits=["a", "b"])
    with pytest.raises(DataError, match="'test' is both in the data and beside it"):
        inspect_images(data, splits=["test"] * 8, beside={"test": data})
    with pytest.raises(DataError, match=r"N = 8 images, not \[2, 3\]"):
        inspect_images(data, features=np.zeros((2, 3), np.float32))
    findings = inspect_images(data)
    assert isinstance(findings, ImageFindings)
    with pytest.raises(DataError, match="8 images do not fit pets with 3"):
        describe_groups(findings, data.subset([0, 1, 2]))

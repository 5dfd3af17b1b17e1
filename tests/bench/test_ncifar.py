"""The nCIFAR recipes, counted on small sets in the layout of the real ones."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lauter.bench.ncifar import measure_recipes, render_recipes
from lauter.bench.records import Record, ResultFile
from lauter.data import corrupt, open_dataset
from lauter.errors import ConfigError
from lauter.noise import RECIPES

MADE = ("source_images", "images", "clean", "closed", "open", "largest_class", "smallest_class")


def encode_picture(rng: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, size=(8, 8, 3), dtype=np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def write_set(folder: Path, prefix: str, classes: int, per_class: int, human: str) -> Path:
    """Pictures of random pixels; people gave every fifth image of a class the next one's name."""
    labels = np.arange(classes * per_class) % classes
    people = np.where(np.arange(len(labels)) // classes % 5 == 0, (labels + 1) % classes, labels)
    rng = np.random.default_rng(classes)
    names = {"names": [f"{prefix}{k}" for k in range(classes)], "_type": "ClassLabel"}
    features = {"image": {"_type": "Image"}, "label": names, human: names}
    table = pa.table(
        {
            "id": [f"{prefix}/{row}" for row in range(len(labels))],
            "image": [{"bytes": encode_picture(rng), "path": None} for _ in labels],
            "label": labels,
            human: people,
        }
    )
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    folder.mkdir()
    pq.write_table(table.replace_schema_metadata(metadata), folder / "train-00000-of-00001.parquet")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("ncifar")
    ten = write_set(root / "ten", "a", 10, 60, "label_worst")
    return ten, write_set(root / "hundred", "b", 100, 24, "label_noisy")


@pytest.fixture(scope="module")
def records(folders: tuple[Path, Path]) -> list[Record]:
    # The set of ten classes is too small a source of open images for most recipes of a hundred.
    return measure_recipes(*folders, [name for name, recipe in RECIPES.items() if recipe.base == "cifar10"])


def test_every_recipe_is_counted(records: list[Record]) -> None:
    by_recipe: dict[str, dict[str, float]] = {}
    for record in records:
        assert (record.suite, record.method, record.seed) == ("noisy", "recipe", 0)
        by_recipe.setdefault(record.data, {})[record.metric] = record.value
    assert list(by_recipe) == ["ncifar10-mild", "ncifar10", "ncifar10-hard", "ncifar10-human"]
    for name, values in by_recipe.items():
        recipe = RECIPES[name]
        n = values["images"]
        assert values["source_images"] == 600
        assert values["largest_class"] == 60
        assert values["smallest_class"] == int(60 / recipe.ratio + 0.5)
        assert values["clean"] + values["closed"] + values["open"] == n
        assert values["open"] == round(recipe.open_rate * n)
        if recipe.closed_kind != "human":
            assert values["closed"] == round(recipe.closed_rate * n)
        assert 0 < values["closed"] < n / 2
        for kind in ("clean", "closed", "open"):
            assert values[f"{kind}_rate"] == pytest.approx(values[kind] / n)
        assert ("confusion_accuracy" in values) == (name == "ncifar10-hard")


def test_hashes_are_those_of_the_corrupted_sets(folders: tuple[Path, Path], records: list[Record]) -> None:
    clean, foreign = (open_dataset(folder, label_column="label") for folder in folders)
    hashes = {record.data: record for record in records if record.metric == "sha256"}
    for name in ("ncifar10", "ncifar10-hard"):
        wanted = corrupt(clean, name, open_source=foreign).source["corruption"]["sha256"]
        assert hashes[name].text == wanted
        assert f"{int(hashes[name].value):013x}" == wanted[:13]
    assert len({record.text for record in hashes.values()}) == 4
    assert all(record.text == "" for record in records if record.metric != "sha256")


def test_another_seed_gives_other_hashes(folders: tuple[Path, Path], records: list[Record]) -> None:
    other = {r.metric: r for r in measure_recipes(*folders, ["ncifar10"], seed=1)}
    first = {r.metric: r for r in records if r.data == "ncifar10"}
    assert other["sha256"].text != first["sha256"].text
    assert other["sha256"].seed == 1
    assert all(other[metric].value == first[metric].value for metric in MADE)


def test_a_hundred_classes(folders: tuple[Path, Path]) -> None:
    """Enough foreign images are there where little open noise is asked for."""
    found = {record.metric: record for record in measure_recipes(*folders, ["ncifar100-mild"])}
    n = found["images"].value
    assert (found["largest_class"].value, found["smallest_class"].value) == (24, 2)
    assert found["open"].value == round(0.1 * n)
    assert found["closed"].value == round(0.2 * n)


def test_the_table_survives_its_file(records: list[Record], tmp_path: Path) -> None:
    ResultFile({"cpu": "abacus"}, {}, "lauter bench ncifar").append(records).write(tmp_path / "ncifar.json")
    text = render_recipes(ResultFile.read(tmp_path / "ncifar.json").records)
    assert text == render_recipes(records)
    lines = text.splitlines()
    assert len(lines) == 6
    assert len({line.count("|") for line in lines}) == 1
    hard = next(line for line in lines if line.startswith("| ncifar10-hard |"))
    value = {record.metric: record for record in records if record.data == "ncifar10-hard"}
    assert f"| 600 | {value['images'].value:.0f} |" in hard
    assert f"| {100 * value['confusion_accuracy'].value:.1f} | `{value['sha256'].text}` |" in hard
    assert lines[2].split("|")[-3] == " — "


def test_a_table_of_nothing_or_of_several_seeds_is_refused(records: list[Record]) -> None:
    with pytest.raises(ConfigError, match="there are none"):
        render_recipes([])
    other = Record("noisy", "ncifar10", "recipe", 1, "sha256", 1.0, "1")
    with pytest.raises(ConfigError, match=r"one seed, and there are \[0, 1\]"):
        render_recipes([*records, other])


def test_unknown_recipes_are_refused(folders: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="no recipe 'ncifar1'"):
        measure_recipes(*folders, ["ncifar1"])

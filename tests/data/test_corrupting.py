import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lauter.data import (
    Dataset,
    ResidentImages,
    corrupt,
    corrupting,
    open_dataset,
    write_parquet,
    write_splits,
)
from lauter.errors import ConfigError, DataError
from lauter.noise import (
    RECIPES,
    NoiseRecipe,
    apply_recipe,
    count_long_tail,
    learn_confusions,
    noise_kinds,
)

MIXED = NoiseRecipe("mixed", 4, "symmetric", 0.2, 0.1)


def make_dataset(name: str, classes: str, per_class: int, side: int = 8) -> Dataset:
    n = len(classes) * per_class
    rng = np.random.default_rng(len(name))
    return Dataset(
        name=name,
        images=ResidentImages(rng.integers(0, 256, size=(n, 3, side, side), dtype=np.uint8)),
        labels=np.repeat(np.arange(len(classes)), per_class),
        class_names=tuple(classes),
        ids=np.array([f"{name}/{row}" for row in range(n)]),
        source={"spec": name, "image_size": side},
    )


def test_a_corrupted_set_is_what_the_recipe_says() -> None:
    clean, foreign = make_dataset("clean", "abcd", 40), make_dataset("foreign", "xyb", 30)
    noisy = corrupt(clean, MIXED, seed=3, open_source=foreign)
    candidates = np.arange(60)  # class b of the foreign set is one of ours
    expected = apply_recipe(MIXED, clean.labels, 4, 3, open_candidates=candidates)
    np.testing.assert_array_equal(noisy.labels, expected.labels)
    assert noisy.true_labels is not None
    np.testing.assert_array_equal(noisy.true_labels, expected.true_labels)
    np.testing.assert_array_equal(noisy.ids, clean.ids[expected.index])
    for row in range(len(noisy)):
        origin = expected.foreign_index[row]
        picture = clean.images.read(expected.index[row]) if origin < 0 else foreign.images.read(origin)
        np.testing.assert_array_equal(noisy.images.read(row), picture)
    record = noisy.source["corruption"]
    assert record["sha256"] == expected.sha256
    assert record["counts"] == expected.count_kinds()
    assert record["left_out"] == ["b"]
    assert noisy.source["image_size"] == 8
    json.dumps(noisy.source, allow_nan=False)


def test_corrupting_leaves_its_inputs_alone() -> None:
    clean, foreign = make_dataset("clean", "abcd", 40), make_dataset("foreign", "xy", 30)
    before = clean.fingerprint(), foreign.fingerprint()
    corrupt(clean, NoiseRecipe("r", 1, "symmetric", 0.5, 0.3), open_source=foreign)
    assert (clean.fingerprint(), foreign.fingerprint()) == before


def test_the_same_seed_gives_the_same_set_and_another_seed_another() -> None:
    clean, foreign = make_dataset("clean", "abcd", 40), make_dataset("foreign", "xy", 30)
    prints = [corrupt(clean, MIXED, seed=seed, open_source=foreign).fingerprint() for seed in (0, 0, 1)]
    assert prints[0] == prints[1] != prints[2]


def test_foreign_images_are_fitted_to_the_clean_size() -> None:
    clean, foreign = make_dataset("clean", "abcd", 40), make_dataset("foreign", "xy", 30, side=20)
    noisy = corrupt(clean, MIXED, open_source=foreign)
    assert noisy.images.uniform is not None
    assert noisy.images.uniform.shape[1:] == (3, 8, 8)


def test_streamed_images_are_replaced_as_they_are(class_folders: Callable[..., Path]) -> None:
    root = class_folders(a=20, b=20)
    clean = open_dataset(root, resident_limit=0)
    foreign = make_dataset("foreign", "xy", 5, side=20)  # as many as are needed: each is used
    noisy = corrupt(clean, NoiseRecipe("open", open_rate=0.25), open_source=foreign)
    assert noisy.images.uniform is None
    assert noisy.true_labels is not None
    for row in range(40):
        assert noisy.images.read(row).shape[1] == (20 if noisy.true_labels[row] == -1 else 16)


def test_recipes_by_name_and_human_labels(shared_data: Callable[[str], Path]) -> None:
    people = open_dataset(shared_data("cifar10"), label_column="label_worst", truth_column="label", size=2000)
    assert people.true_labels is not None
    clean = people.with_labels(people.true_labels)
    foreign = open_dataset(shared_data("cifar100"), size=1000)
    noisy = corrupt(clean, "ncifar10-human", open_source=foreign, human_labels=people.labels)
    kinds = noise_kinds(noisy.true_labels, noisy.labels)
    assert (kinds == "open").sum() == round(0.2 * len(noisy))
    assert (kinds == "closed").mean() == pytest.approx(0.40, abs=0.05)
    left_out = noisy.source["corruption"]["left_out"]
    assert set(left_out) == set(RECIPES["ncifar10-human"].left_out)


def test_what_cannot_be_corrupted_is_refused() -> None:
    clean = make_dataset("clean", "abcd", 10)
    noisy = corrupt(clean, NoiseRecipe("pairs", closed_kind="pairs", closed_rate=0.5))
    with pytest.raises(DataError, match="pairs: its given labels are not its true labels"):
        corrupt(noisy, NoiseRecipe("none"))
    with pytest.raises(DataError, match="clean: 1 images are unlabelled"):
        corrupt(clean.with_labels(np.where(np.arange(40) == 3, -1, clean.labels)), NoiseRecipe("none"))
    with pytest.raises(ConfigError, match="no recipe 'nonsense'"):
        corrupt(clean, "nonsense")
    with pytest.raises(ConfigError, match=r"'ncifar10' needs open images \(meant: cifar100\)"):
        corrupt(clean, "ncifar10")


def test_parquet_round_trip_is_pixel_exact(tmp_path: Path) -> None:
    noisy = corrupt(make_dataset("clean", "abcd", 40), MIXED, open_source=make_dataset("foreign", "xy", 30))
    write_parquet(noisy, tmp_path / "noisy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noisy"]
    assert sorted(path.name for path in (tmp_path / "noisy").iterdir()) == [
        "recipe.json",
        "train-00000-of-00001.parquet",
        "truth.parquet",
    ]
    again = open_dataset(tmp_path / "noisy", label_column="label", truth_column="true_label")
    assert again.class_names == noisy.class_names
    np.testing.assert_array_equal(again.ids, noisy.ids)
    np.testing.assert_array_equal(again.labels, noisy.labels)
    assert again.true_labels is not None
    np.testing.assert_array_equal(again.true_labels, noisy.true_labels)
    np.testing.assert_array_equal(again.images.uniform, noisy.images.uniform)
    assert open_dataset(tmp_path / "noisy").true_labels is None
    recipe = json.loads((tmp_path / "noisy" / "recipe.json").read_text())
    assert recipe["train"]["sha256"] == noisy.source["corruption"]["sha256"]
    assert recipe["train"]["seed"] == 0
    assert recipe["train"]["recipe"]["closed_rate"] == 0.2
    shard = pq.ParquetFile(tmp_path / "noisy" / "train-00000-of-00001.parquet")
    assert shard.schema_arrow.names == ["id", "image", "label"]
    truth = pq.ParquetFile(tmp_path / "noisy" / "truth.parquet").read()
    assert truth.column_names == ["split", "id", "true_label", "noise"]
    assert truth.column("id").to_pylist() == noisy.ids.tolist()
    assert truth.column("true_label").to_pylist() == np.asarray(noisy.true_labels).tolist()
    assert truth.column("noise").to_pylist() == noise_kinds(noisy.true_labels, noisy.labels).tolist()


def test_what_is_written_loads_in_hugging_face_datasets(tmp_path: Path) -> None:
    noisy = corrupt(make_dataset("clean", "abcd", 40), MIXED, open_source=make_dataset("foreign", "xy", 30))
    write_parquet(noisy, tmp_path / "noisy")
    loaded = datasets.Dataset.from_parquet(
        str(tmp_path / "noisy" / "train-00000-of-00001.parquet"), cache_dir=str(tmp_path / "cache")
    )
    assert loaded.features["label"].names == list("abcd")
    assert loaded[5]["label"] == noisy.labels[5]
    np.testing.assert_array_equal(np.asarray(loaded[5]["image"]).transpose(2, 0, 1), noisy.images.read(5))


def test_large_sets_are_written_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corrupting, "SHARD_BYTES", 20_000)
    clean = make_dataset("clean", "abcd", 100)
    write_parquet(clean, tmp_path / "out", split="test")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"test-{number:05d}-of-{len(names):05d}.parquet" for number in range(len(names))]
    assert len(names) > 1
    again = open_dataset(tmp_path / "out")
    np.testing.assert_array_equal(again.images.uniform, clean.images.uniform)
    np.testing.assert_array_equal(again.ids, clean.ids)


def test_several_splits_are_written_at_once(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_splits({"train": make_dataset("t", "ab", 4), "test": make_dataset("s", "ab", 3)}, tmp_path / "out")
    assert len(open_dataset(tmp_path / "out", split="test")) == 6
    assert open_dataset(tmp_path / "out").ids[0] == "t/0"


def test_nothing_is_written_over_and_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = make_dataset("clean", "ab", 4)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(DataError, match="is there and not an empty folder"):
        write_parquet(clean, tmp_path / "full")
    with pytest.raises(DataError, match=r"split '\.\./x': expected letters"):
        write_parquet(clean, tmp_path / "new", split="../x")

    def fail(pixels: object) -> bytes:
        raise OSError("no space left on device")

    monkeypatch.setattr(corrupting, "encode_png", fail)
    with pytest.raises(OSError, match="no space left"):
        write_parquet(clean, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_unlabelled_images_survive_the_round_trip(
    tmp_path: Path, picture: Callable[..., Image.Image]
) -> None:
    clean = make_dataset("clean", "ab", 4)
    labels = clean.labels.copy()
    labels[3] = -1
    write_parquet(clean.with_labels(labels), tmp_path / "out")
    np.testing.assert_array_equal(open_dataset(tmp_path / "out").labels, labels)


def write_noisy(folder: Path, **options: str) -> Dataset:
    noisy = corrupt(make_dataset("clean", "abcd", 40), MIXED, open_source=make_dataset("foreign", "xy", 30))
    write_parquet(noisy, folder, **options)  # type: ignore[arg-type]
    return noisy


def test_training_reads_no_truth_even_where_the_file_is_broken(tmp_path: Path) -> None:
    noisy = write_noisy(tmp_path / "noisy")
    whole = open_dataset(tmp_path / "noisy")
    (tmp_path / "noisy" / "truth.parquet").write_bytes(b"no parquet")
    without = open_dataset(tmp_path / "noisy")
    assert without.true_labels is None
    assert without.fingerprint() == whole.fingerprint() == noisy.fingerprint()
    with pytest.raises(DataError, match=r"truth\.parquet: cannot be read as Parquet"):
        open_dataset(tmp_path / "noisy", truth_column="true_label")
    (tmp_path / "noisy" / "truth.parquet").unlink()
    assert open_dataset(tmp_path / "noisy").fingerprint() == whole.fingerprint()
    with pytest.raises(DataError, match=r"no column 'true_label' \(truth_column\); its columns: id, image"):
        open_dataset(tmp_path / "noisy", truth_column="true_label")


def test_truth_is_looked_up_by_id_whatever_the_order(tmp_path: Path) -> None:
    noisy = write_noisy(tmp_path / "noisy")
    path = tmp_path / "noisy" / "truth.parquet"
    truth = pq.ParquetFile(path).read()
    pq.write_table(truth.take(np.random.default_rng(0).permutation(len(noisy))), path)
    again = open_dataset(tmp_path / "noisy", truth_column="true_label")
    np.testing.assert_array_equal(again.true_labels, noisy.true_labels)
    part = open_dataset(tmp_path / "noisy", truth_column="true_label", size=50)
    place = {id_: row for row, id_ in enumerate(noisy.ids.tolist())}
    wanted = np.asarray(noisy.true_labels)[[place[id_] for id_ in part.ids.tolist()]]
    np.testing.assert_array_equal(part.true_labels, wanted)


def test_splits_may_share_ids_and_have_their_own_truth(tmp_path: Path) -> None:
    clean = make_dataset("set", "ab", 20)
    noisy = corrupt(clean, NoiseRecipe("half", closed_kind="symmetric", closed_rate=0.5))
    test = clean.with_truth(clean.labels)
    write_splits({"train": noisy, "test": test}, tmp_path / "out")
    for split, wanted in (("train", noisy), ("test", test)):
        again = open_dataset(tmp_path / "out", split=split, truth_column="true_label")
        np.testing.assert_array_equal(again.true_labels, wanted.true_labels)
        np.testing.assert_array_equal(again.labels, wanted.labels)
    kinds = pq.ParquetFile(tmp_path / "out" / "truth.parquet").read().to_pydict()
    rows = list(zip(kinds["split"], kinds["noise"], strict=True))
    assert rows.count(("train", "closed")) == 20
    assert rows.count(("test", "clean")) == 40


def test_class_names_that_are_numbers_keep_their_meaning(tmp_path: Path) -> None:
    """Integers of the truth are places in the list of names, not the names themselves."""
    clean = dataclasses.replace(make_dataset("set", "abc", 10), class_names=("10", "9", "2"))
    noisy = corrupt(clean, NoiseRecipe("some", closed_kind="symmetric", closed_rate=0.4))
    write_parquet(noisy, tmp_path / "out")
    again = open_dataset(tmp_path / "out", truth_column="true_label")
    assert again.class_names == ("10", "9", "2")
    np.testing.assert_array_equal(again.true_labels, noisy.true_labels)


def test_truth_may_stand_in_columns_instead(tmp_path: Path) -> None:
    noisy = write_noisy(tmp_path / "noisy", truth="columns")
    assert not (tmp_path / "noisy" / "truth.parquet").exists()
    table = pq.ParquetFile(tmp_path / "noisy" / "train-00000-of-00001.parquet").read()
    assert table.column_names == ["id", "image", "label", "true_label", "noise"]
    assert table.column("noise").to_pylist() == noise_kinds(noisy.true_labels, noisy.labels).tolist()
    again = open_dataset(tmp_path / "noisy", truth_column="true_label")
    np.testing.assert_array_equal(again.true_labels, noisy.true_labels)
    assert open_dataset(tmp_path / "noisy").true_labels is None


def test_a_set_without_truth_has_no_file_of_it(tmp_path: Path) -> None:
    write_parquet(make_dataset("clean", "ab", 4), tmp_path / "out")
    assert not (tmp_path / "out" / "truth.parquet").exists()


def test_truth_of_other_data_is_refused(tmp_path: Path) -> None:
    noisy = write_noisy(tmp_path / "noisy")
    path = tmp_path / "noisy" / "truth.parquet"
    truth = pq.ParquetFile(path).read()
    n = len(noisy)
    for rows, message in (
        (np.arange(3, n), f"3 of the {n} ids stand nowhere for split 'train'; it was written for other"),
        (np.append(np.arange(n), 5), "1 ids stand more than once"),
        (np.arange(0), f"{n} of the {n} ids stand nowhere"),
    ):
        pq.write_table(truth.take(rows), path)
        with pytest.raises(DataError, match=message):
            open_dataset(tmp_path / "noisy", truth_column="true_label")
    pq.write_table(truth, path)
    with pytest.raises(DataError, match=r"no column 'truth' .* neither there nor in truth\.parquet, whose"):
        open_dataset(tmp_path / "noisy", truth_column="truth")
    pq.write_table(truth.drop_columns(["id"]), path)
    with pytest.raises(DataError, match="no column 'id'"):
        open_dataset(tmp_path / "noisy", truth_column="true_label")


def test_where_the_truth_goes_must_be_known(tmp_path: Path) -> None:
    clean, other = make_dataset("c", "ab", 4), make_dataset("other", "xy", 4)
    with pytest.raises(DataError, match="truth must be one of file, columns, not 'both'"):
        write_parquet(clean, tmp_path / "out", truth="both")  # type: ignore[arg-type]
    splits = {"train": clean.with_truth(clean.labels), "test": other.with_truth(other.labels)}
    with pytest.raises(DataError, match="splits train, test have different classes"):
        write_splits(splits, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    write_splits(splits, tmp_path / "out", truth="columns")
    assert open_dataset(tmp_path / "out", split="test").class_names == ("x", "y")


def test_the_truth_is_no_split_for_hugging_face_either(tmp_path: Path) -> None:
    write_noisy(tmp_path / "noisy")
    loaded = datasets.load_dataset(str(tmp_path / "noisy"), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    assert loaded["train"].column_names == ["id", "image", "label"]


HARD = NoiseRecipe("hard", 2, "instance", 0.4, 0.3)


def test_instance_noise_learns_its_confusions_from_all_clean_images() -> None:
    clean, foreign = make_dataset("clean", "abcd", 40), make_dataset("foreign", "xy", 60)
    noisy = corrupt(clean, HARD, seed=5, open_source=foreign)
    confusions = learn_confusions(clean.images.uniform, clean.labels, 4, 5)
    expected = apply_recipe(
        HARD, clean.labels, 4, 5, class_probabilities=confusions.probabilities, open_candidates=np.arange(120)
    )
    np.testing.assert_array_equal(noisy.labels, expected.labels)
    record = noisy.source["corruption"]
    assert record["sha256"] == expected.sha256
    assert record["confusions"] == confusions.to_dict()
    assert record["confusions"]["seed"] == 5
    assert sorted(record["class_sizes"], reverse=True) == [40, 32, 25, 20]
    json.dumps(record, allow_nan=False)
    plain = corrupt(clean, NoiseRecipe("p", closed_kind="pairs", closed_rate=0.5)).source["corruption"]
    assert plain["confusions"] is None
    assert plain["class_sizes"] == [40] * 4


def test_streamed_and_large_images_are_made_small_for_the_confusions(
    class_folders: Callable[..., Path],
) -> None:
    recipe = NoiseRecipe("instance", closed_kind="instance", closed_rate=0.25)
    root = class_folders(side=40, a=20, b=20)
    streamed = corrupt(open_dataset(root, resident_limit=0), recipe)
    resident = corrupt(open_dataset(root), recipe)
    small = corrupt(open_dataset(root, image_size=32), recipe)
    assert streamed.images.uniform is None
    assert resident.images.uniform is not None
    hashes = {noisy.source["corruption"]["sha256"] for noisy in (streamed, resident, small)}
    assert len(hashes) == 1
    assert (streamed.labels != streamed.true_labels).sum() == 10


def test_what_is_missing_is_said_before_anything_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("learned")

    monkeypatch.setattr(corrupting, "learn_confusions", refuse)
    with pytest.raises(ConfigError, match="'hard' needs open images"):
        corrupt(make_dataset("clean", "abcd", 40), HARD)


def test_the_hard_recipe_on_cifar(shared_data: Callable[[str], Path]) -> None:
    clean = open_dataset(shared_data("cifar10"), label_column="label", size=2000)
    foreign = open_dataset(shared_data("cifar100"), label_column="label", size=1500)
    noisy = corrupt(clean, "ncifar10-hard", open_source=foreign)
    counts, n = noisy.source["corruption"]["counts"], len(noisy)
    assert counts["closed"] == round(0.4 * n)
    assert counts["open"] == round(0.3 * n)
    sizes = noisy.source["corruption"]["class_sizes"]
    assert sorted(sizes, reverse=True) == count_long_tail(10, 50, max(sizes)).tolist()
    assert 0.25 < noisy.source["corruption"]["confusions"]["accuracy"] < 0.8

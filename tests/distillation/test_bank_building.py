"""Building a bank: stopped, damaged, mistaken for another, without room; and whether it pays."""

import json
import math
import re
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lauter.data import Dataset
from lauter.data.views import ViewRecipe
from lauter.distillation import bank_building
from lauter.distillation.bank import Bank, open_bank
from lauter.distillation.bank_building import choose_teacher_source
from lauter.distillation.bank_files import BankKey, make_bank_key
from lauter.errors import BankError, ConfigError, DataError, ModelError
from lauter.losses.hashing import hash_bits
from lauter.models import InputSpec, Network
from lauter.training.predict import predict
from lauter.training.runtime import Runtime, RuntimeConfig

SIZE, FEATURES, IMAGES = 12, 15, 30
PADDED, RESIZED = ViewRecipe(pad=2, flip=0.5), ViewRecipe(area=(0.2, 0.8), flip=0.5)

Build = Callable[..., Bank]
MakeData = Callable[..., Dataset]
MakeTeacher = Callable[..., Network]
DrawHashes = Callable[..., tuple[Tensor, Tensor]]


class KilledError(Exception):
    """Stands for a process that ends."""


@pytest.mark.usefixtures("small_shards")
def test_a_killed_build_goes_on_with_the_shards_that_are_missing(tmp_path: Path, build: Build) -> None:
    told: list[tuple[int, int]] = []

    def stop_after_four(done: int, total: int) -> None:
        told.append((done, total))
        if len(told) == 4:
            raise KilledError

    whole = build(tmp_path / "whole")
    with pytest.raises(KilledError):
        build(tmp_path / "killed", progress=stop_after_four)
    with pytest.raises(
        BankError, match=r"5 of 12 files are wrong; .*view-0001-block-00001\.npy is not built"
    ):
        open_bank(tmp_path / "killed", whole.key)
    (tmp_path / "killed" / ".view-0001-block-00001-x1.npy").write_bytes(b"half a shard")
    with patch.object(bank_building, "predict", wraps=predict) as asked:
        build(tmp_path / "killed", progress=lambda done, total: told.append((done, total)))
    assert asked.call_count == 5
    assert told == [(done, 81) for done in (10, 20, 27, 37, 47, 54, 64, 74, 81)]
    files = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "killed").iterdir())
    for name in files:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    with patch.object(bank_building, "predict", wraps=predict) as asked:
        build(tmp_path / "killed")
    assert asked.call_count == 0


def test_a_bank_grows_by_views_and_never_shrinks(tmp_path: Path, build: Build) -> None:
    build(tmp_path, views=2)
    with patch.object(bank_building, "predict", wraps=predict) as asked:
        assert build(tmp_path, views=3).views == 3
        assert build(tmp_path, views=1).views == 3
    assert asked.call_count == 1


def test_the_teacher_sees_in_eval_mode_and_goes_back(
    tmp_path: Path, build: Build, make_teacher: MakeTeacher
) -> None:
    network = make_teacher().train()
    build(tmp_path / "training", network=network)
    assert network.training
    build(tmp_path / "eval")
    shard = "view-0002-block-00000.npy"
    assert (tmp_path / "training" / shard).read_bytes() == (tmp_path / "eval" / shard).read_bytes()


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[:-5])
    else:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("name", ["view-0001-block-00002.npy", "rows.npy", "weight.npy"])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "is missing"),
        ("cut", r"has [\d,]+ bytes where [\d,]+ were written"),
        ("bit", "has changed"),
    ],
)
def test_a_damaged_file_is_refused_by_name_and_building_again_mends_it(
    tmp_path: Path, name: str, how: str, message: str, build: Build, rows: NDArray[np.int64]
) -> None:
    key = build(tmp_path).key
    whole = (tmp_path / name).read_bytes()
    damage(tmp_path / name, how)
    with pytest.raises(BankError, match=rf"{re.escape(name)} {message}.*[Bb]uild the bank again"):
        open_bank(tmp_path, key).look_up(rows, 1)
    with patch.object(bank_building, "predict", wraps=predict) as asked:
        build(tmp_path)
    assert asked.call_count == (name.startswith("view"))
    assert (tmp_path / name).read_bytes() == whole


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data", "00"),
        ("teacher", "00"),
        ("recipe", "v1:none"),
        ("view_seed", 12),
        ("image_size", 224),
        ("device", "cuda"),
        ("precision", "bf16"),
        ("hashes", "00"),
    ],
)
def test_a_bank_of_something_else_is_refused_with_both_values(
    tmp_path: Path, field: str, value: str | int, build: Build
) -> None:
    key = build(tmp_path, views=1).key
    there = re.escape(repr(getattr(key, field)))
    with pytest.raises(BankError, match=f"\n  {field}: {there} in the bank, {value!r} expected\nbuild one"):
        open_bank(tmp_path, replace(key, **{field: value}))


def test_every_difference_is_shown_and_nothing_else(tmp_path: Path, build: Build) -> None:
    key = build(tmp_path, views=1).key
    with pytest.raises(BankError) as caught:
        open_bank(tmp_path, replace(key, view_seed=1, precision="bf16"))
    assert str(caught.value).count(" in the bank, ") == 2
    assert open_bank(tmp_path, replace(key, hashes="")).key == key  # who reads no bits may have any


def test_the_key_knows_everything_but_the_labels(
    runtime: Runtime, make_data: MakeData, make_teacher: MakeTeacher, draw_hashes: DrawHashes
) -> None:
    data, network = make_data(), make_teacher()

    def key(**changed: Any) -> BankKey:
        settings: dict[str, Any] = {"network": network, "data": data, "recipe": PADDED, "view_seed": 1}
        settings |= {"image_size": SIZE, "runtime": runtime}
        return make_bank_key(**{**settings, **changed})

    assert key() == key(data=data.with_labels(np.zeros(IMAGES, np.int64)), network=make_teacher())
    other_ids = replace(data, ids=np.array([f"{row}.jpg" for row in range(IMAGES)]))
    nudged = make_teacher()
    nudged.backbone.module[1].running_var[0] += 1e-6  # type: ignore[union-attr, index, operator]
    normalised = make_teacher()
    normalised.input_spec = InputSpec(SIZE, mean=(0.5, 0.5, 0.5))
    hashes = draw_hashes(8)
    keys = [
        key(),
        key(data=make_data(1)),
        key(data=other_ids),
        key(data=make_data(streamed=True)),
        key(network=make_teacher(1)),
        key(network=nudged),
        key(network=normalised),
        key(recipe=RESIZED),
        key(view_seed=2),
        key(image_size=10),
        key(runtime=Runtime(RuntimeConfig(device="cpu", precision="bf16"))),
        key(hashes=hashes),
        key(hashes=(hashes[0], hashes[1] + 1e-6)),
        key(hashes=draw_hashes(8, seed=1)),
    ]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("view_seed", r"view_seed: 11 in the bank, 12 expected"),
        ("network", r"teacher: '\w+' in the bank, '\w+' expected"),
        ("data", r"data: '\w+' in the bank"),
        ("hashes", r"hashes: '\w+' in the bank"),
        ("rows", r"its rows differs: \w+ there, \w+ wanted"),
        ("fewer rows", r"its num_rows differs: 27 there, 20 wanted"),
        ("parts", r"its layout differs: .*choose another directory"),
    ],
)
def test_building_over_another_bank_is_refused(
    tmp_path: Path,
    what: str,
    message: str,
    build: Build,
    make_data: MakeData,
    make_teacher: MakeTeacher,
    draw_hashes: DrawHashes,
) -> None:
    others: dict[str, Any] = {
        "view_seed": 12,
        "network": make_teacher(1),
        "data": make_data(1),
        "hashes": draw_hashes(64, seed=9),
        "rows": np.arange(27),
        "fewer rows": np.arange(20),
        "parts": frozenset({"bits", "logits"}),
    }
    before = build(tmp_path, views=1).key
    with pytest.raises(BankError, match=message):
        build(tmp_path, views=1, **{what.removeprefix("fewer "): others[what]})
    open_bank(tmp_path, before)


def test_what_is_no_bank_is_refused(tmp_path: Path, build: Build) -> None:
    key = build(tmp_path / "bank", views=1).key
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("milk")
    for directory in (tmp_path / "notes", tmp_path / "nowhere"):
        with pytest.raises(BankError, match=r"is no teacher bank: it has no manifest\.json; build one"):
            open_bank(directory, key)
    with pytest.raises(BankError, match="is not empty and holds no teacher bank; choose another"):
        build(tmp_path / "notes")
    with pytest.raises(BankError, match="is a file; name a directory"):
        build(tmp_path / "notes" / "todo.txt")
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".DS_Store").write_bytes(b"")
    assert build(tmp_path / "hidden", views=1).key == key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: {**content, "version": 2}, "is of version 2, and this lauter reads version 1"),
        (lambda content: {**content, "key": {}}, "is not the manifest of a bank"),
        (lambda content: {k: v for k, v in content.items() if k != "views"}, "is not the manifest of a bank"),
        (lambda content: {**content, "files": {"rows.npy": 3}}, "is not the manifest of a bank"),
        (lambda content: [content], "is not the manifest of a bank"),
        (lambda content: {}, "is not the manifest of a bank"),
    ],
)
def test_a_manifest_that_is_not_understood_is_refused(
    tmp_path: Path, change: Callable[[Any], Any], message: str, build: Build
) -> None:
    key = build(tmp_path, views=1).key
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(BankError, match=f"{message}.*delete the directory and build the bank again"):
        open_bank(tmp_path, key)
    path.write_text("{")
    with pytest.raises(BankError, match="cannot be read"):
        open_bank(tmp_path, key)


Usage = namedtuple("Usage", "total used free")


def test_a_disk_without_room_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build: Build, draw_hashes: DrawHashes
) -> None:
    hashes = draw_hashes(64)
    needed = 3 * 27 * 8 + 27 * 8 + 4 * (64 * FEATURES + 64)  # bits, rows, hashes
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**6, 0, needed - 1))
    with pytest.raises(BankError, match=f"needs {needed:,} bytes more in .*, and {needed - 1:,} are free"):
        build(tmp_path / "a" / "b", hashes=hashes)
    assert not (tmp_path / "a").exists()
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**6, 0, needed))
    build(tmp_path / "a" / "b", hashes=hashes)
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(10**6, 0, 0))
    build(tmp_path / "a" / "b", hashes=hashes)  # nothing is missing, so nothing is needed


def test_a_disk_that_fails_is_named(tmp_path: Path, build: Build) -> None:
    with (
        patch("lauter.distillation.bank_files.np.save", side_effect=OSError("no space left")),
        pytest.raises(BankError, match=r"rows\.npy could not be written \(no space left\).* is kept"),
    ):
        build(tmp_path)
    build(tmp_path)


def test_hashing_leaves_the_precision_of_products_as_it_was(tmp_path: Path, build: Build) -> None:
    seen: list[str] = []

    def listen(*arguments: Tensor) -> Tensor:
        seen.append(torch.get_float32_matmul_precision())
        return hash_bits(*arguments)

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with patch.object(bank_building, "hash_bits", listen):
            build(tmp_path, views=1)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert set(seen) == {"highest"}


def scale_features(network: Network, factor: float) -> Network:
    nn.init.constant_(network.backbone.module[1].weight, factor)  # type: ignore[union-attr, index, arg-type]
    return network


def test_numbers_that_cannot_be_kept_are_refused(
    tmp_path: Path, build: Build, make_teacher: MakeTeacher
) -> None:
    large, broken = scale_features(make_teacher(), 1e6), scale_features(make_teacher(), math.nan)
    with pytest.raises(BankError, match=r"features reach [\d,]+, and half precision ends at 65,504; .*exact"):
        build(tmp_path / "half", {"features"}, network=large)
    build(tmp_path / "single", {"features"}, network=large, exact=True, views=1)
    build(tmp_path / "hashed", network=large, views=1)
    for parts in ({"features"}, {"bits"}):
        with pytest.raises(BankError, match="features are not finite; check its weights"):
            build(tmp_path / "".join(parts), parts, network=broken)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"views": 0}, ConfigError, "views and batch_size must be 1 or more, not 0 and 10"),
        ({"batch_size": 0}, ConfigError, "must be 1 or more, not 3 and 0"),
        ({"rows": np.zeros(0, np.int64)}, DataError, "none was given"),
        ({"rows": np.array([3, IMAGES])}, DataError, rf"0\.\.{IMAGES - 1}, not 3\.\.{IMAGES}"),
        ({"rows": np.array([-1, 3])}, DataError, r"not -1\.\.3"),
        ({"hashes": (torch.ones(4, 9), torch.zeros(4))}, ModelError, r"do not fit hash weights \[4, 9\]"),
        ({"hashes": (torch.ones(4, FEATURES), torch.zeros(3))}, ModelError, "the bias of the hashes"),
    ],
)
def test_settings_that_make_no_bank_are_refused(
    tmp_path: Path, changed: dict[str, Any], error: type[Exception], message: str, build: Build
) -> None:
    with pytest.raises(error, match=message):
        build(tmp_path / "bank", **changed)
    assert not (tmp_path / "bank").exists()


def test_a_bank_pays_where_it_keeps_fewer_views_than_epochs_of_all_students() -> None:
    for views, students, source in ((59, 1, "bank"), (60, 1, "live"), (61, 1, "live"), (119, 2, "bank")):
        choice = choose_teacher_source(0.01, 60, views, students, 1000, 256, 10**12)
        assert choice.source == source
    choice = choose_teacher_source(0.01, 60, 8, 2, 1000, 256, 10**12)
    assert choice.reason == (
        "a live teacher passes over the images 120 times (60 epochs of 2 students, 1,200.0 s), a bank of 8 "
        "views 8 times (80.0 s), so the bank saves 1,120.0 s for 2,048,000 bytes of disk"
    )
    full = choose_teacher_source(0.01, 60, 8, 2, 1000, 256, 2_047_999)
    assert full.source == "live"
    assert "the bank needs 2,048,000 bytes and 2,047,999 are free" in full.reason
    assert choose_teacher_source(0.01, 60, 8, 2, 1000, 256, 2_048_000).source == "bank"
    useless = choose_teacher_source(0.01, 1, 1, 1, 1000, 256, 10**12)
    assert useless.reason.endswith("so a bank would save nothing")


@pytest.mark.parametrize("place", range(6))
def test_a_choice_needs_numbers_in_range(place: int) -> None:
    numbers: list[Any] = [0.01, 60, 8, 2, 1000, 256, 10**9]
    numbers[place] = 0
    with pytest.raises(ConfigError, match="must be 1 or more and teacher_seconds_per_image above 0, not"):
        choose_teacher_source(*numbers)

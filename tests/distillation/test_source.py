"""Where a teacher's outputs come from: live and bank teach the same, and a choice is made once."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lauter.data import Dataset
from lauter.data.batches import ImageBatches
from lauter.distillation import source as source_module
from lauter.distillation.bank import BankTeacher
from lauter.distillation.heads import fit_student_head
from lauter.distillation.mimic import MimicConfig
from lauter.distillation.recipe import distill_into
from lauter.distillation.source import VIEW_SEED, SourceConfig
from lauter.distillation.stage import DistillStage
from lauter.distillation.stored import Stored, StoredTeacher
from lauter.distillation.teacher import LiveTeacher
from lauter.errors import BankError, ConfigError, DataError, ModelError
from lauter.models import Network, create_network
from lauter.training.checkpoint import Checkpoints
from lauter.training.loop import Loop
from lauter.training.runtime import Runtime
from lauter.training.setup import Setup

MakeSetup = Callable[..., Setup]


@pytest.fixture
def make_setup(make_data: Callable[..., Dataset], runtime: Runtime) -> MakeSetup:
    """A run on 27 of 30 pictures, in a directory or in none."""

    def make(folder: Path | None, seed: int = 0) -> Setup:
        loop = Loop(runtime, Checkpoints(None if folder is None else folder / "checkpoints"), seed=seed)
        # Which rows are held out depends on the seed, as in a run.
        order = np.roll(np.arange(30), 3 * seed)
        return Setup(make_data(), np.sort(order[:27]), np.sort(order[27:]), None, loop, 12, "objects")

    return make


def teach(setup: Setup, teacher: Network | Stored, *, name: str = "distill", **settings: Any) -> DistillStage:
    torch.manual_seed(5)
    student = create_network("resnet8", 3, image_size=12)
    config = MimicConfig(epochs=2, batch_size=10, hashes=64, **settings)
    fit_student_head(student, teacher, config.head)
    targets = torch.from_numpy(setup.data.labels)
    return distill_into(student, teacher, setup, targets, setup.train, config, name=name)


@pytest.mark.parametrize("loss", ["l2", "lsh", "lshl2"])
def test_a_bank_teaches_what_the_live_teacher_teaches_on_the_same_views(
    loss: str, make_setup: MakeSetup, make_teacher: Callable[..., Network], tmp_path: Path
) -> None:
    setup, teacher = make_setup(tmp_path), make_teacher()
    stage = teach(setup, teacher, loss=loss, source=SourceConfig("bank", views=2))
    assert isinstance(stage.teacher, BankTeacher)
    assert isinstance(stage.batches, ImageBatches)
    assert (stage.batches.view_seed, stage.batches.cycle) == (VIEW_SEED, 2)
    assert stage.teacher.shows == ({"l2": {"features"}, "lsh": {"bits"}, "lshl2": {"features", "bits"}}[loss])
    assert stage.teacher.flops_per_image == 0
    live = LiveTeacher(teacher, torch.device("cpu"))
    stage.begin_epoch(1)
    for batch in stage.batches.epoch(1):
        stage.student.eval()
        targets = stage.targets[batch.index]
        output = stage._answer(batch)
        ours, theirs = (
            stage.method(output, stage.method.prepare(source.see(batch)), batch.index, targets)["mimic"]
            for source in (stage.teacher, live)
        )
        # Bits are exact, features are kept as float16.
        exact = {"rtol": 0.0, "atol": 0.0} if loss == "lsh" else {"rtol": 2e-3, "atol": 1e-5}
        torch.testing.assert_close(ours, theirs, **exact)


def test_with_one_seed_a_bank_and_a_live_teacher_make_the_same_student(
    make_setup: MakeSetup, make_teacher: Callable[..., Network], tmp_path: Path
) -> None:
    students = []
    for kind, seed in (("live", 3), ("bank", 3), ("live", 4)):
        setup = make_setup(tmp_path / f"{kind}-{seed}")
        everything = dataclasses.replace(setup, train=np.arange(30))  # a bank's hashes are centred on all
        source = SourceConfig(kind, views=2, seed=seed)  # type: ignore[arg-type]
        students.append(teach(everything, make_teacher(), loss="lsh", source=source).student.state_dict())
    live, banked, other = students
    torch.testing.assert_close(banked, live, rtol=0, atol=0)
    with pytest.raises(AssertionError, match="not close"):
        torch.testing.assert_close(other, live)


def test_one_bank_serves_students_of_other_seeds(
    make_setup: MakeSetup, make_teacher: Callable[..., Network], tmp_path: Path
) -> None:
    bank = SourceConfig("bank", views=2, directory=str(tmp_path / "bank"))
    teach(make_setup(tmp_path / "one", 1), make_teacher(), loss="lsh", source=bank)
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "bank").glob("*.npy")}
    assert len(files) > 2
    teach(make_setup(tmp_path / "two", 2), make_teacher(), loss="lsh", source=bank)
    assert files == {file: file.stat().st_mtime_ns for file in (tmp_path / "bank").glob("*.npy")}
    with pytest.raises(BankError, match="teacher"):
        teach(make_setup(tmp_path / "three"), make_teacher(4), loss="lsh", source=bank)


def test_auto_is_decided_once_and_said(
    make_setup: MakeSetup,
    make_teacher: Callable[..., Network],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    setup = make_setup(tmp_path)
    monkeypatch.setattr(setup.loop.progress, "say", said.append)
    stage = teach(setup, make_teacher(), source=SourceConfig("auto", views=1))
    assert isinstance(stage.teacher, BankTeacher)
    assert any(
        line.startswith("teacher     bank: a live teacher passes over the images 2 times") for line in said
    )
    written = json.loads((tmp_path / "checkpoints" / "distill.source.json").read_text())
    assert written["source"] == "bank"

    def refuse(*_: object) -> float:
        raise AssertionError("measured again")

    monkeypatch.setattr(source_module, "time_teacher", refuse)
    again = teach(make_setup(tmp_path), make_teacher(), source=SourceConfig("auto", views=1))
    assert isinstance(again.teacher, BankTeacher)
    many = teach(make_setup(None), make_teacher(), source=SourceConfig("auto", views=1))
    assert isinstance(many.teacher, LiveTeacher), "there is no directory for a bank"


def test_more_views_than_epochs_save_nothing(
    make_setup: MakeSetup, make_teacher: Callable[..., Network], tmp_path: Path
) -> None:
    stage = teach(make_setup(tmp_path), make_teacher(), source=SourceConfig("auto", views=2))
    assert isinstance(stage.teacher, LiveTeacher)
    reason = json.loads((tmp_path / "checkpoints" / "distill.source.json").read_text())["reason"]
    assert reason.endswith("so a bank would save nothing")


def test_stored_features_teach_without_a_network(make_setup: MakeSetup, tmp_path: Path) -> None:
    features: Tensor = torch.rand(30, 20, generator=torch.Generator().manual_seed(1))
    setup = make_setup(tmp_path)
    stage = teach(setup, Stored("features.npy", features), loss="l2")
    assert isinstance(stage.teacher, StoredTeacher)
    batch = next(iter(stage.batches.epoch(0)))
    torch.testing.assert_close(stage.teacher.see(batch).features, features[batch.index])
    stage.begin_epoch(0)
    term = stage.loss(batch)["mimic"]
    stage.student.train()
    output = stage._answer(batch)
    expected = (output.features - 4 * features[batch.index]).double().square().mean(1)  # std 0.29, so 4 times
    torch.testing.assert_close(term.double(), expected, rtol=1e-4, atol=1e-6)


def test_stored_features_bring_neither_a_classifier_nor_views(make_setup: MakeSetup) -> None:
    stored = Stored("features.npy", torch.rand(30, 20))
    with pytest.raises(ModelError, match="bring no classifier"):
        teach(make_setup(None), stored, head="teacher")
    with pytest.raises(ConfigError, match=r"leave out --distill\.source\.kind bank"):
        teach(make_setup(None), stored, source=SourceConfig("bank"))


@pytest.mark.parametrize("images", [29, 31])
def test_stored_features_must_be_those_of_the_data(images: int, make_setup: MakeSetup) -> None:
    with pytest.raises(DataError, match=f"holds features of {images} images, the data has 30"):
        teach(make_setup(None), Stored("features.npy", torch.rand(images, 20)))


def test_the_embedding_goes_first_where_it_is_asked_for(
    make_setup: MakeSetup, make_teacher: Callable[..., Network], tmp_path: Path
) -> None:
    setup = make_setup(tmp_path)
    stage = teach(setup, make_teacher(), embedding_epochs=1)
    assert list(setup.loop.costs) == ["distill-embedding", "distill"]
    assert not stage.embedding_only
    saved = torch.load(tmp_path / "checkpoints" / "distill-embedding.pt", weights_only=True)
    assert saved["position"] == (1, 0, True)


def test_a_bank_needs_a_folder_and_settings_have_ranges(
    make_setup: MakeSetup, make_teacher: Callable[..., Network]
) -> None:
    with pytest.raises(ConfigError, match="a bank needs a folder"):
        teach(make_setup(None), make_teacher(), source=SourceConfig("bank"))
    for bad, message in (
        ({"kind": "disk"}, "must be live, bank or auto, not 'disk'"),
        ({"views": 0}, "must be 1 or more, not 0 and 1"),
        ({"students": 0}, "must be 1 or more, not 16 and 0"),
        ({"seed": -1}, "seed must be 0 or more, not -1"),
    ):
        with pytest.raises(ConfigError, match=message):
            dataclasses.replace(SourceConfig(), **bad)  # type: ignore[arg-type]

"""The measurement of the audit on small pictures: the same evidence for all, no truth, nothing twice."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lauter.bench import audit, audit_evidence
from lauter.bench.audit import METHODS, find_features, measure_audit, name_unit
from lauter.bench.audit_data import AuditData, Folders
from lauter.bench.audit_evidence import AuditBenchConfig
from lauter.bench.audit_rivals import Case, Findings, judge_by_disagreement
from lauter.bench.records import Record
from lauter.config import load_preset
from lauter.data import Dataset, ResidentImages, corrupt
from lauter.errors import ConfigError
from lauter.noise import NoiseRecipe
from lauter.noisy.pretrain import PretrainConfig
from lauter.noisy.rivals.confident import FoldStage
from lauter.noisy.robust import RobustConfig
from lauter.noisy.warmup import WarmupConfig
from lauter.training.runtime import RuntimeConfig
from lauter.training.schedule import OptimizerConfig
from lauter.training.supervised import SupervisedConfig

RUNTIME = RuntimeConfig(device="cpu", precision="32", workers=0)
OWN = ("lauter", "filter", "confident", "disagreement", "oracle rate")
CONFIG = AuditBenchConfig(
    network="resnet8",
    pretrain=PretrainConfig(epochs=1, batch_size=32, monitor_every=0),
    warmup=WarmupConfig(epochs=2),
    robust=RobustConfig(epochs=1, batch_size=32),
    supervised=SupervisedConfig(3, 32, OptimizerConfig(lr=0.05)),
)
IMAGES = 160


def open_colours(_: Folders, seed: int) -> Dataset:
    """Pictures of three classes told apart by colour and brightness; three labels of ten are wrong."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, IMAGES)
    pixels = rng.integers(0, 12, (IMAGES, 3, 16, 16))
    pixels[np.arange(IMAGES), true] += 150
    pixels += 40 * true[:, None, None, None]
    ids = np.array([f"{row}.png" for row in range(IMAGES)])
    clean = Dataset(
        "colours", ResidentImages(pixels.clip(0, 255).astype(np.uint8)), true, ("r", "g", "b"), ids
    )
    return corrupt(clean, NoiseRecipe("small", closed_kind="symmetric", closed_rate=0.3), seed=seed)


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    sets = {
        "colours": AuditData(open_colours, features="pixels"),
        "photos": AuditData(open_colours, ("photos",)),
    }
    monkeypatch.setattr(audit, "DATA", sets)


def measure(work: Path, methods: tuple[str, ...] = OWN, **options: Any) -> list[Record]:
    return measure_audit("colours", 3, Folders(), work, RUNTIME, CONFIG, methods, **options)


def refuse(*_: object) -> None:
    raise AssertionError("measured again")


def test_judges_leave_their_records_and_nothing_is_measured_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measure(tmp_path, ("disagreement",))
    # Another judge needs the same beliefs: they are there already.
    monkeypatch.setattr(audit_evidence, "gather_evidence", refuse)
    records = measure(tmp_path)
    monkeypatch.setattr(audit, "gather", refuse)
    assert {record.key for record in measure(tmp_path)} == {record.key for record in records}
    assert {(record.suite, record.data, record.seed) for record in records} == {("audit", "colours", 3)}
    found = {(record.method, record.metric): record.value for record in records}
    assert {record.key: record.value for record in first}.items() <= {r.key: r.value for r in records}.items()
    for method in OWN:
        # How good the audit is on a handful of images is not for this test to say.
        assert found[method, "auroc"] > (0.5 if method == "lauter" else 0.8)
        assert 0 < found[method, "f1"] <= 1
        assert found[method, "f1_of_best"] == pytest.approx(found[method, "f1"] / found[method, "best_f1"])
        assert found[method, "noise_true"] == pytest.approx(0.3)
        assert found[method, "review_size"] == 24
        assert found[method, "peak_mib"] > 10
        assert 0 < found[method, "seconds"] < 60
    assert found["oracle rate", "flagged"] == pytest.approx(0.3)
    assert found["lauter", "noise_width"] > 0
    assert ("disagreement", "noise_width") not in found
    assert found["evidence", "images"] == IMAGES
    assert found["evidence", "classes"] == 3
    assert found["evidence", "seconds_evidence"] > 0


def test_judges_see_one_evidence_and_never_the_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Case] = []

    def watch(case: Case) -> Findings:
        seen.append(case)
        return judge_by_disagreement(case)

    monkeypatch.setattr(audit, "JUDGES", {"watch": watch})
    monkeypatch.setattr(audit, "METHODS", ("watch", "again"))
    gathered = audit.gather

    def look(unit: Any, kind: str) -> Any:
        assert unit.data.true_labels is None
        return gathered(unit, kind)

    monkeypatch.setattr(audit, "gather", look)
    measure(tmp_path, ("watch",))
    monkeypatch.setattr(audit, "JUDGES", {"again": watch})
    measure(tmp_path, ("again",))
    one, two = seen
    np.testing.assert_array_equal(one.labels, open_colours(Folders(), 3).labels)
    assert one.features is not None
    assert one.features.shape == (IMAGES, 256)
    # The second saw them as they came back from the disk.
    for name in ("classes", "probs", "given", "rest"):
        np.testing.assert_array_equal(getattr(one.beliefs, name), getattr(two.beliefs, name))
    np.testing.assert_array_equal(one.probabilities, two.probabilities)


def test_beliefs_come_from_plain_or_robust_networks_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What judges from features of its own has nothing to measure where there are none, cleanlab or not.
    monkeypatch.setattr(audit, "require_cleanlab", lambda: None)
    records = measure(tmp_path, ("disagreement", "datalab-features"), evidence="networks")
    assert {record.data for record in records} == {"colours networks"}
    assert {record.method for record in records} == {"disagreement", "evidence"}
    found = {(record.method, record.metric): record.value for record in records}
    assert found["disagreement", "auroc"] > 0.8
    # 3 epochs over either half, and each half judged once.
    assert found["evidence", "cost_images"] == 4 * IMAGES
    robust = measure(tmp_path, ("disagreement",), evidence="training")
    assert {record.data for record in robust} == {"colours training"}
    costs = {record.metric: record.value for record in robust if record.method == "evidence"}
    assert costs["cost_flops"] > 0
    monkeypatch.setattr(FoldStage, "loss", refuse)
    assert measure(tmp_path, ("disagreement", "datalab-features"), evidence="networks") == records


def test_features_are_learnt_once_for_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_true(folders: Folders, seed: int) -> Dataset:
        data = open_colours(folders, seed)
        return data.with_labels(np.asarray(data.true_labels))

    monkeypatch.setattr(
        audit, "DATA", {"colours": AuditData(open_colours), "colours-clean": AuditData(open_true)}
    )
    found = {}
    for name in ("colours", "colours-clean"):
        for record in measure_audit(name, 3, Folders(), tmp_path, RUNTIME, CONFIG, ("disagreement",)):
            found[name, record.method, record.metric] = record.value
    assert found["colours", "evidence", "seconds_features"] > 0
    assert found["colours", "evidence", "images_per_second"] > 0
    assert ("colours-clean", "evidence", "seconds_features") not in found
    assert found["colours-clean", "disagreement", "noise_true"] == 0
    assert ("colours-clean", "disagreement", "auroc") not in found


def test_features_may_come_from_files(tmp_path: Path) -> None:
    data = open_colours(Folders(), 3)
    folder = tmp_path / "good"
    folder.mkdir()
    pixels = np.asarray(data.images.uniform)
    features = pixels.mean((2, 3), dtype=np.float32)
    np.save(folder / "colours-3.npy", features)
    (folder / "colours-3.ids.txt").write_text("\n".join(data.ids.tolist()) + "\n")
    records = measure(tmp_path / "work", ("disagreement",), features=str(folder))
    assert {record.data for record in records} == {"colours good"}
    found = {(record.method, record.metric): record.value for record in records}
    assert found["disagreement", "auroc"] > 0.95
    assert ("evidence", "seconds_features") not in found
    with pytest.raises(ConfigError, match="no features of colours with seed 4; expected a file colours-4"):
        find_features(folder, "colours", 4)


def test_pictures_are_inspected_where_the_set_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_splits(_: Folders) -> dict[str, Dataset]:
        data = open_colours(Folders(), 0)
        pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 3, 16, 16)).astype(np.uint8)
        pixels[1] = pixels[0]  # a twin
        train = dataclasses.replace(data, images=ResidentImages(pixels), labels=np.arange(IMAGES) % 3)
        test = train.subset(np.arange(2, 5))  # three leaks
        return {"train": train, "test": dataclasses.replace(test, ids=np.array(["a", "b", "c"]))}

    sets = {
        "colours": AuditData(open_colours, features="pixels", splits=open_splits),
        "bare": AuditData(open_colours, features="pixels"),
    }
    monkeypatch.setattr(audit, "DATA", sets)
    found = {
        record.metric: record.value
        for record in measure(tmp_path, ("pictures",))
        if record.method == "pictures"
    }
    assert found["images"] == IMAGES + 3
    assert (found["near_duplicates"], found["near_duplicate_groups"], found["conflicts"]) == (2, 1, 2)
    assert (found["leaks"], found["faults"]) == (3, 0)
    assert found["images_per_second"] == pytest.approx((IMAGES + 3) / found["seconds"])
    bare = measure_audit("bare", 3, Folders(), tmp_path, RUNTIME, CONFIG, ("pictures",))
    assert {record.method for record in bare} == {"evidence"}
    shown = measure(tmp_path, ("pictures",), evidence="networks")
    assert {record.method for record in shown} == {"evidence"}


def test_units_are_called_after_what_is_not_as_usual(tmp_path: Path) -> None:
    assert name_unit("ncifar10", "features") == "ncifar10"
    assert name_unit("ncifar10", "training") == "ncifar10 training"
    assert name_unit("ncifar10", "features", "timm:vit_small") == "ncifar10 timm-vit_small"
    assert name_unit("ncifar10", "features", str(tmp_path)) == f"ncifar10 {tmp_path.name}"


def test_other_settings_need_another_folder(tmp_path: Path) -> None:
    measure(tmp_path, ("disagreement",))
    other = AuditBenchConfig(network="resnet20", pretrain=CONFIG.pretrain)
    with pytest.raises(ConfigError, match=r"other settings \(network, robust, supervised, warmup\)"):
        measure_audit("colours", 3, Folders(), tmp_path, RUNTIME, other, ("filter",))


def test_what_cannot_be_measured_is_refused_before_anything_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "gather", refuse)
    with pytest.raises(ConfigError, match="data must be one of colours, photos, not 'letters'"):
        measure_audit("letters", 0, Folders(), tmp_path, RUNTIME)
    with pytest.raises(ConfigError, match=r"methods must be among lauter, .* not 'guess'"):
        measure(tmp_path, ("filter", "guess"))
    with pytest.raises(ConfigError, match="one of features, networks, training, not 'dreams'"):
        measure(tmp_path, evidence="dreams")
    with pytest.raises(ConfigError, match="are for evidence features, not for 'training'"):
        measure(tmp_path, evidence="training", features="timm:resnet18")
    with pytest.raises(ConfigError, match="needs --photos"):
        measure_audit("photos", 0, Folders(), tmp_path, RUNTIME)

    def absent() -> None:
        raise ConfigError("cleanlab needs the bench extra")

    monkeypatch.setattr(audit, "require_cleanlab", absent)
    with pytest.raises(ConfigError, match="bench extra"):
        measure(tmp_path, ("filter", "datalab"))
    assert not list(tmp_path.iterdir())


def test_presets_are_those_of_the_whole_way() -> None:
    config = AuditBenchConfig.from_preset("quick")
    assert config.pretrain.epochs == load_preset("quick").pretrain.epochs
    assert config.robust == load_preset("quick").robust
    assert config.pretrain.monitor_every == 0
    assert {"lauter", "datalab", "oracle rate", "pictures"} < set(METHODS)

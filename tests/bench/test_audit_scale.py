"""What an audit of drawn features costs: the draws, and that every part is measured."""

from pathlib import Path

import numpy as np
import pytest

from lauter.bench import audit_scale
from lauter.bench.audit_scale import generate_features, measure_audit_scale
from lauter.errors import ConfigError


def test_features_are_drawn_around_class_centres_and_mapped_from_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_scale, "_BLOCK", 300)
    rng = np.random.default_rng(0)
    features, given, true = generate_features(1000, 32, 4, 0.3, rng, tmp_path / "features.npy")
    assert isinstance(features, np.memmap)
    assert (features.shape, features.dtype) == ((1000, 32), np.float16)
    assert np.mean(given != true) == pytest.approx(0.3, abs=0.05)
    assert set(np.unique(given)) == set(range(4))
    standard = features.astype(np.float64) * np.sqrt(np.arange(1, 33))
    within = np.stack([standard[true == label].std(0) for label in range(4)]).mean(0)
    np.testing.assert_allclose(within, 1, atol=0.1)
    between = (np.stack([standard[true == label].mean(0) for label in range(4)]) ** 2).mean(0)
    assert between[:8].mean() > 2 * between[-8:].mean()
    centres = np.stack([standard[true == label].mean(0) for label in range(4)])
    nearest = ((standard[:, None] - centres) ** 2).sum(2).argmin(1)
    assert np.mean(nearest == true) > 0.95
    assert [path.name for path in tmp_path.iterdir()] == ["features.npy"]
    again = generate_features(1000, 32, 4, 0.3, np.random.default_rng(0), tmp_path / "again.npy")
    np.testing.assert_array_equal(again[0], features)


@pytest.mark.parametrize("bad", [(0, 4, 2, 0.1), (9, 0, 2, 0.1), (9, 4, 1, 0.1), (9, 4, 2, 1.0)])
def test_numbers_out_of_range_are_refused(bad: tuple[int, int, int, float], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="features are drawn of"):
        generate_features(*bad, np.random.default_rng(0), tmp_path / "features.npy")


def test_every_part_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(audit_scale.SIZES, "tiny", (600, 16, 5))
    records = measure_audit_scale("tiny", tmp_path, 3)
    values = {record.metric: record.value for record in records}
    assert {(r.suite, r.data, r.method, r.seed) for r in records} == {
        ("audit", "600 x 16, 5 classes", "lauter", 3)
    }
    for part in ("neighbours", "votes", "axes", "heads", "beliefs", "evidence", "judging"):
        assert values[f"seconds_{part}"] >= 0
    np.testing.assert_allclose(values["seconds"], values["seconds_evidence"] + values["seconds_judging"])
    assert values["peak_mib"] == max(values["peak_mib_evidence"], values["peak_mib_judging"])
    assert values["neighbour_recall"] == 1
    assert values["auroc"] > 0.9


def test_unknown_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one of 50k, 100k, 1m, not '2k'"):
        measure_audit_scale("2k", tmp_path)

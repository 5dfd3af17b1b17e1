"""Friend or foe: changes reach the part they name, and verdicts follow from paired differences."""

import pytest

from lauter.bench.friends import ADDED, INSTEAD, VARIANTS, WITHOUT, draw_chart, judge_parts
from lauter.bench.noisy import METHODS
from lauter.bench.records import Record
from lauter.config import FitConfig, to_plain
from lauter.noisy.recipe import NoisyConfig


def make_recipe() -> NoisyConfig:
    config = FitConfig()
    return NoisyConfig(config.pretrain, config.warmup, config.robust)


def record(method: str, seed: int, value: float, data: str = "d") -> Record:
    return Record("noisy", data, method, seed, "balanced_accuracy_last", value)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_changes_the_default_and_nothing_but_one_group(variant: str) -> None:
    default, changed = to_plain(make_recipe()), to_plain(VARIANTS[variant](make_recipe()))
    assert default != changed
    different = [part for part in default if default[part] != changed[part]]
    # Prior correction is one part that two stages share.
    assert different == (["warmup", "robust"] if variant == "no-prior-correction" else different[:1])


def test_no_variant_bears_the_name_of_a_method() -> None:
    assert not VARIANTS.keys() & set(METHODS)


def test_the_three_groups_do_not_overlap() -> None:
    assert len(VARIANTS) == len(WITHOUT) + len(INSTEAD) + len(ADDED)


def test_a_part_is_a_friend_where_its_loss_hurts_and_a_foe_where_its_presence_does() -> None:
    records = [record("fnf", seed, value) for seed, value in enumerate((0.60, 0.62, 0.64))]
    worse = [0.55, 0.571, 0.589]
    for method in ("no-filter", "with-mixup"):
        records += [record(method, seed, value) for seed, value in enumerate(worse)]
    records += [record("moco", seed, value) for seed, value in enumerate((0.58, 0.66, 0.63))]
    records += [record("with-two-networks", seed, value) for seed, value in enumerate((0.65, 0.671, 0.689))]
    records += [record("no-correction", seed, value) for seed, value in enumerate((0.65, 0.671, 0.689))]
    records += [
        record("with-mixmatch", 0, 0.1),
        record("no-ensemble", 7, 0.1),
        record("with-mixup", 0, 0.9, "other"),
    ]
    found = {finding.variant: finding for finding in judge_parts(records, "d")}
    assert {name: finding.verdict for name, finding in found.items()} == {
        "no-filter": "friend",
        "no-correction": "foe",
        "moco": "no evidence",
        "with-mixup": "foe",
        "with-two-networks": "friend",
    }
    assert found["with-mixup"].difference.mean == pytest.approx(-0.05)


def test_the_chart_shows_interval_numbers_and_verdict_around_one_zero() -> None:
    records = [record("fnf", seed, value) for seed, value in enumerate((0.5, 0.5, 0.5))]
    records += [record("with-mixup", seed, value) for seed, value in enumerate((0.38, 0.40, 0.42))]
    records += [record("moco", seed, value) for seed, value in enumerate((0.49, 0.50, 0.51))]
    lines = draw_chart(judge_parts(records, "d")).splitlines()
    assert len(lines) == 3
    zero = lines[0].index("0", len("with-mixup") + 8)
    moco, mixup = lines[1], lines[2]
    assert moco.startswith("moco")
    assert moco.endswith("no evidence")
    assert moco[zero] == "o"
    assert mixup.startswith("with-mixup")
    assert mixup.endswith("foe")
    assert mixup[zero] == "|"
    assert "-10.0 [-15.0, -5.0]" in mixup
    assert mixup.index("o", 5) < zero
    assert draw_chart([]) == ""

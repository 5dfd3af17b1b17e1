"""Costs at another size: the arithmetic, and its words."""

import re

import numpy as np
import pytest

from lauter.bench.projection import PartCost, project_costs, render_projection
from lauter.errors import ConfigError

TRAINING = PartCost("training", 90, 0.002, memory_per_image=2**10, disk_per_image=2**11)
JUDGING = PartCost("judging", 3, 0.001, shared=False)


def test_time_grows_with_images_and_is_divided_among_those_that_share_it() -> None:
    training, judging, together = project_costs([TRAINING, JUDGING], 2**20, processes=8, efficiency=0.5)
    np.testing.assert_allclose(training.hours, 90 * 2**20 * 0.002 / (8 * 0.5) / 3600)
    np.testing.assert_allclose(judging.hours, 3 * 2**20 * 0.001 / 3600)
    np.testing.assert_allclose(together.hours, training.hours + judging.hours)
    np.testing.assert_allclose([together.memory, together.disk], [1.0, 2.0])
    assert together.name == "in all"


def test_the_arithmetic_is_shown() -> None:
    shown = render_projection(project_costs([TRAINING, JUDGING], 1_000_000, processes=8, efficiency=0.9))
    assert "| training | 90 x 1,000,000 x 2 ms / (8 x 0.9) | 6.9 |" in shown
    assert "| judging | 3 x 1,000,000 x 1 ms | 0.83 |" in shown
    assert {line.count("|") for line in shown.splitlines()} == {6}


def test_what_is_no_cost_is_refused() -> None:
    with pytest.raises(ConfigError, match="training: a cost must be 0 or more, not -1"):
        PartCost("training", -1, 0.1)
    with pytest.raises(ConfigError, match="needs one measured part"):
        project_costs([], 10)
    for wrong in ({"processes": 0}, {"efficiency": 0.0}, {"efficiency": 1.5}):
        with pytest.raises(ConfigError, match=re.escape("efficiency within (0, 1]")):
            project_costs([TRAINING], 10, **wrong)  # type: ignore[arg-type]

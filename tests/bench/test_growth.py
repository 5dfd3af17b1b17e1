"""Growth: every part is measured at every size once, exponents are slopes, and the chart shows them."""

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from lauter.bench import growth
from lauter.bench.growth import ALL, PARTS, fit_exponents, measure_growth, measure_part, name_size
from lauter.bench.records import Record, ResultFile
from lauter.bench.speed_pages import CHART, draw_growth, render_growth, write_growth_chart
from lauter.errors import ConfigError


def make_records(power: float, part: str = "data") -> list[Record]:
    sizes = (10_000, 100_000, 1_000_000)
    return [Record("speed", name_size(count), part, 0, "seconds", 3e-6 * count**power) for count in sizes]


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_the_exponent_is_that_of_the_cost(power: float) -> None:
    (found,) = fit_exponents(make_records(power))
    assert (found.data, found.method, found.metric) == (ALL, "data", "exponent_seconds")
    np.testing.assert_allclose(found.value, power)


def test_one_size_or_no_time_has_no_exponent() -> None:
    assert fit_exponents(make_records(1)[:1]) == []
    still = [Record("speed", name_size(count), "data", 0, "added_mib", 0.0) for count in (1000, 2000)]
    assert fit_exponents(still) == []


@pytest.mark.parametrize("part", list(PARTS))
def test_every_part_can_be_measured(part: str, tmp_path: Path) -> None:
    found = {record.metric: record for record in measure_part(part, 1000, tmp_path)}
    assert {record.data for record in found.values()} == {"1,000 images"}
    assert found["seconds"].value > 0
    np.testing.assert_allclose(found["images_per_second"].value, 1000 / found["seconds"].value)
    assert found["peak_mib"].value >= found["added_mib"].value >= 0


def test_what_was_measured_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def pretend(act: object, part: str, count: int, work: Path) -> list[Record]:
        asked.append((part, count))
        return [Record("speed", name_size(count), part, 0, "seconds", count / 1000)]

    monkeypatch.setattr(growth, "run_apart", pretend)
    first: list[Record] = []
    again: list[Record] = []
    measure_growth(["data"], [2000, 1000], tmp_path, first.extend)
    measure_growth(["data", "bank"], [1000, 2000], tmp_path, again.extend)
    assert asked == [("data", 1000), ("data", 2000), ("bank", 1000), ("bank", 2000)]
    assert [record.value for record in first] == [1, 2]
    assert again[:2] == first
    assert {record.method for record in again[2:]} == {"bank"}


@pytest.mark.parametrize(
    ("parts", "sizes", "message"),
    [
        (["loss"], [1000], "not of 'loss'"),
        (["data"], [10], "from 1,000 images on"),
        (["data"], [], "from 1,000"),
    ],
)
def test_bad_requests_are_refused(parts: list[str], sizes: list[int], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        measure_growth(parts, sizes, tmp_path, lambda records: None)


def test_the_table_and_the_chart_show_every_part(tmp_path: Path) -> None:
    records = [*make_records(1.0), *make_records(2.0, "search")]
    records += fit_exponents(records)
    table = render_growth(records)
    assert "| part | 10,000 images | 100,000 images | 1,000,000 images | exponent |" in table
    assert "| data, seconds | 0.03 | 0.30 | 3.00 | 1.00 |" in table
    assert f"images/{CHART.name}" in table
    assert render_growth([]) == ""
    assert not write_growth_chart(tmp_path, tmp_path)
    ResultFile({}, {}, "").append(records).write(tmp_path / "growth.json")
    assert write_growth_chart(tmp_path, tmp_path)
    root = ET.fromstring((tmp_path / CHART).read_text())
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"data", "search", "10,000", "1,000,000"} <= texts


def test_a_line_of_the_chart_rises_with_the_cost() -> None:
    root = ET.fromstring(draw_growth({"data": [(1e4, 0.1), (1e6, 10.0)]}))
    (path,) = root.iter("{http://www.w3.org/2000/svg}path")
    (x_first, y_first), (x_last, y_last) = (
        tuple(map(float, point.split())) for point in path.attrib["d"].removeprefix("M").split(" L")
    )
    assert x_first < x_last
    assert y_first > y_last  # upwards

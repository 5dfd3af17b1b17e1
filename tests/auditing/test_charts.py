import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from numpy.testing import assert_allclose

from lauter.auditing.report.charts import (
    Estimate,
    Line,
    draw_bars,
    draw_estimates,
    draw_heat_map,
    draw_histogram,
    draw_lines,
)
from lauter.auditing.report.svg import WIDTH, pick_ticks, shorten

HOSTILE = "</svg><script>alert('x')</script>&\""


def parse(svg):
    """The chart as XML, which it must be to stand in any page."""
    root = ET.fromstring(svg)
    assert root.get("role") == "img"
    assert root.find("title").text
    assert root.find("desc").text
    return root


def numbers_of(points):
    return np.array([[float(value) for value in pair.split(",")] for pair in points.split()])


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.31, 0.64, [0.4, 0.5, 0.6]),
        (0, 300, [0, 100, 200, 300]),
        (-2, 2, [-2, -1, 0, 1, 2]),
        (5, 5, [5]),
    ],
)
def test_ticks_are_round_and_inside(low, high, expected):
    assert_allclose(pick_ticks(low, high), expected)


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 7.3, 1e6])
def test_there_are_always_a_few_ticks(scale):
    for low in (0.0, 0.13, 0.77):
        ticks = pick_ticks(low * scale, scale)
        assert 2 <= len(ticks) <= 7
        assert low * scale - 1e-12 <= ticks[0]
        assert ticks[-1] <= scale * (1 + 1e-9)


def test_a_line_goes_through_its_points():
    root = parse(draw_lines("Loss", [Line("ce", [0, 1, 2], [4.0, 2.0, 3.0])]))
    points = numbers_of(root.find("polyline").get("points"))
    steps = np.diff(points[:, 0])
    assert steps[0] == steps[1] > 0
    # The y axis of a screen points down: 4 -> 2 falls twice as far as 2 -> 3 rises.
    assert_allclose((points[1, 1] - points[0, 1]) / (points[1, 1] - points[2, 1]), 2, rtol=0.01)
    assert points.min() >= 0
    assert points[:, 0].max() <= WIDTH
    assert root.find("desc").text == "ce: 4 at epoch 0, 3 at epoch 2"


def test_a_gap_breaks_the_line_and_a_single_point_is_a_dot():
    root = parse(draw_lines("Loss", [Line("ce", range(6), [1, 2, math.nan, 3, 2, math.inf])]))
    assert len(root.findall("polyline")) == 2
    root = parse(draw_lines("Loss", [Line("ce", [0], [1.0])]))
    assert not root.findall("polyline")
    assert len(root.findall("circle")) == 1


def test_a_band_lies_around_its_line():
    root = parse(draw_lines("Angle", [Line("median", [0, 1], [30, 20], low=[20, 10], high=[50, 40])]))
    band, line = (
        numbers_of(root.find("polygon").get("points")),
        numbers_of(root.find("polyline").get("points")),
    )
    assert len(band) == 4
    assert (band[:2, 1] < line[:, 1]).all()
    assert (band[2:][::-1, 1] > line[:, 1]).all()


def test_a_constant_line_can_be_drawn():
    for value in (0.0, 1.0, -3.0):
        svg = draw_lines("Loss", [Line("ce", [0, 1], [value, value])])
        parse(svg)
        assert "nan" not in svg


def test_bars_are_as_long_as_their_values():
    root = parse(draw_bars("Noise", {"cat": 0.4, "dog": 0.1, "owl": 0.0}))
    widths = [float(box.get("width")) for box in root.findall("rect[@class='drop']")]
    assert_allclose(widths[0], 4 * widths[1], rtol=0.01)
    assert widths[2] == 1
    parse(draw_bars("Noise", {"cat": 0.0}))


def test_estimates_stand_within_their_intervals():
    root = parse(
        draw_estimates("Accuracy", [Estimate("student", 0.9, 0.88, 0.93), Estimate("teacher", 0.95)])
    )
    whiskers = [rule for rule in root.findall("line") if "whisker" in rule.get("class")]
    dots = [float(dot.get("cx")) for dot in root.findall("circle")]
    assert len(whiskers) == 1
    assert float(whiskers[0].get("x1")) < dots[0] < float(whiskers[0].get("x2")) < dots[1]
    assert "student: 90.0% (88.0\N{EN DASH}93.0)" in root.find("desc").text


def test_a_heat_map_has_true_classes_as_rows():
    matrix = np.array([[0.7, 0.3], [0.0, 1.0]])
    root = parse(draw_heat_map("Transitions", matrix, ["cat", "dog"]))
    hints = {box.find("title").text: box for box in root.findall("rect")}
    assert set(hints) == {
        "true cat, given cat: 70.0%",
        "true cat, given dog: 30.0%",
        "true dog, given dog: 100.0%",
    }
    confused, right = hints["true cat, given dog: 30.0%"], hints["true cat, given cat: 70.0%"]
    assert confused.get("y") == right.get("y")
    assert float(confused.get("x")) > float(right.get("x"))
    assert (confused.get("class"), right.get("class")) == ("drop", "keep")


def test_a_heat_map_without_confusions_says_so():
    assert parse(draw_heat_map("T", np.eye(2), ["a", "b"])).find("desc").text.endswith("none")


def test_a_histogram_stacks_its_groups():
    groups = {"keep": np.array([0.99, 0.98, np.nan]), "drop": np.array([0.99, 0.01])}
    root = parse(draw_histogram("Right", groups, bins=10))
    boxes = {box.find("title").text: box for box in root.findall("rect")}
    top = boxes["drop, 90.0\N{EN DASH}100.0%: 1"]
    bottom = boxes["keep, 90.0\N{EN DASH}100.0%: 2"]
    assert len(boxes) == 3
    assert_allclose(float(bottom.get("height")), 2 * float(top.get("height")), atol=0.11)
    assert_allclose(float(top.get("y")) + float(top.get("height")), float(bottom.get("y")), atol=0.11)
    assert "keep: 2 images, median 98.5%" in root.find("desc").text


@pytest.mark.parametrize(
    "draw",
    [
        lambda: draw_lines(HOSTILE, [Line(HOSTILE, [0, 1], [1, 2])], x_name=HOSTILE),
        lambda: draw_bars(HOSTILE, {HOSTILE: 0.5}),
        lambda: draw_estimates(HOSTILE, [Estimate(HOSTILE, 0.5, 0.4, 0.6)]),
        lambda: draw_heat_map(HOSTILE, np.full((2, 2), 0.5), [HOSTILE, "dog"]),
    ],
)
def test_hostile_names_stay_text(draw):
    root = parse(draw())
    assert root.find("title").text == HOSTILE
    assert not root.findall(".//script")


def test_colours_come_from_the_style_sheet():
    charts = [
        draw_lines("a", [Line("ce", [0, 1], [1, 2])] * 8),
        draw_bars("b", {"cat": 0.5}),
        draw_heat_map("c", np.eye(3), ["a", "b", "c"]),
    ]
    for svg in charts:
        assert not re.search(r"#[0-9a-f]{3}|rgb\(|fill=|stroke=", svg)
    assert "s1 dashed" in charts[0]


def test_long_names_are_cut():
    assert shorten("short", 5) == "short"
    assert shorten("rather long", 7) == "rather…"

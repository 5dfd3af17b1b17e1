"""The finished student beside its teacher, as the report draws it."""

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from numpy.testing import assert_allclose

from lauter.auditing.report.comparison import MAX_CLASSES, build_comparison
from lauter.auditing.report.spreads import Spread, draw_distribution, draw_spreads
from lauter.auditing.report.svg import WIDTH
from lauter.auditing.report.write import render_report
from lauter.distillation.analysis import compare_features
from lauter.errors import DataError
from lauter.losses.hashing import draw_hash_weights

HOSTILE = "</svg><script>alert('x')</script>&\""


def make_comparison(classes=10, images=600, left_out=0):
    generator = torch.Generator().manual_seed(0)
    teacher = torch.rand(images, 16, generator=generator)
    student = 1.3 * (teacher + 0.2 * torch.randn(images, 16, generator=generator))
    labels = torch.arange(images) % classes
    student[labels == 3] *= 1.5
    student[labels == 3, 0] += 2  # the class that the student follows worst
    student[:left_out] = 0
    weight = draw_hash_weights(512, 16, 0.5, generator)
    return compare_features(student, teacher, labels, weight).to_plain()


@pytest.fixture(scope="module")
def comparison():
    return make_comparison()


@pytest.fixture(scope="module")
def figures(empty_content, comparison):
    view = build_comparison(replace(empty_content, comparison=comparison))
    return {figure["title"]: figure for figure in view["figures"]}


def parse(svg):
    root = ET.fromstring(svg)
    assert root.get("role") == "img"
    assert root.find("title").text
    assert root.find("desc").text
    return root


def find_section(html):
    return re.search(r'(?s)<section id="mimicry".*?</section>', html).group()


def test_every_figure_is_one_valid_image(figures):
    assert list(figures) == [
        "Angle between teacher's and student's features",
        "Norm of the student's features over the teacher's",
        "Angle by class",
        "Norm ratio by class",
        "Equal hash bits by angle",
    ]
    for figure in figures.values():
        parse(figure["svg"])
        assert not re.search(r"#[0-9a-f]{3}|rgb\(|fill=|stroke=|nan|inf", figure["svg"])


def test_the_quantiles_are_said_in_words(figures, comparison):
    found = comparison["angle"]["quantiles"]
    words = f"{found['p50']:.3g}°, the middle 80% {found['p10']:.3g}° to {found['p90']:.3g}°"
    figure = figures["Angle between teacher's and student's features"]
    assert figure["note"] == f"Median {words}."
    assert parse(figure["svg"]).find("desc").text == f"angle: median {words}"


def test_bars_hold_every_image(figures):
    for title in list(figures)[:2]:
        hints = [box.find("title").text for box in parse(figures[title]["svg"]).findall("rect")]
        assert sum(int(re.search(r": (\d+) images", hint).group(1)) for hint in hints) == 600


def test_the_class_farthest_from_the_teacher_comes_first_in_both(figures, content):
    for title in ("Angle by class", "Norm ratio by class"):
        rows = parse(figures[title]["svg"]).find("desc").text.split("; ")
        assert len(rows) == 10
        assert rows[0].startswith(f"{content.class_names[3]}: median ")


def test_bits_stand_beside_the_law_only_where_it_holds(figures, comparison, empty_content):
    figure = figures["Equal hash bits by angle"]
    assert [entry["name"] for entry in figure["legend"]] == ["1 \N{MINUS SIGN} angle / 180°", "measured"]
    assert len(parse(figure["svg"]).findall("polyline")) == 2
    assert "512 hashes" in figure["note"]
    bits = {**comparison["bits"], "through_one_point": False}
    view = build_comparison(replace(empty_content, comparison={**comparison, "bits": bits}))
    assert [entry["name"] for entry in view["figures"][-1]["legend"]] == ["measured"]
    assert len(parse(view["figures"][-1]["svg"]).findall("polyline")) == 1
    assert "do not meet in one point" in view["figures"][-1]["note"]


def test_how_far_bits_are_from_the_law_is_weighted_by_images(empty_content, comparison):
    bits = {"hashes": 8, "share": 0.9, "angles": [18.0, 90.0], "shares": [0.9, 0.1], "images": [9, 1]}
    content = replace(empty_content, comparison={**comparison, "bits": {**bits, "through_one_point": True}})
    law, measured = build_comparison(content)["figures"][-1]["legend"]
    assert law["last"] == "off by 4.0 points"  # nine images at 0, one 40 points away
    assert measured["last"] == "90.0% of all bits"


def test_parts_that_are_missing_are_left_out(content, comparison):
    assert build_comparison(content) is None
    bare = {**comparison, "classes": [], "bits": None}
    assert len(build_comparison(replace(content, comparison=bare))["figures"]) == 2
    html = render_report(replace(content, comparison=bare, history=()))
    assert 'href="#mimicry"' in html
    assert "Over the epochs" not in html
    section = find_section(render_report(replace(content, comparison=bare)))
    assert section.count("<figure>") == 4
    assert section.index("unchanged images") < section.index("Over the epochs")


def test_images_without_direction_and_beyond_the_scale_are_stated(content):
    comparison = make_comparison(left_out=7)
    comparison["norm_ratio"] |= {"below": 2, "above": 3}
    section = find_section(render_report(replace(content, comparison=comparison)))
    assert "593 unchanged images" in section
    assert "Left out: 7 on which" in section
    assert "5 images lie beyond the scale." in section
    assert "Left out" not in find_section(render_report(replace(content, comparison=make_comparison())))


def test_many_classes_are_listed_rather_than_drawn(content):
    names = tuple(f"a rather long name of a class, number {k}" for k in range(40))
    html = render_report(
        replace(content, class_names=names, metrics={}, labels=None, comparison=make_comparison(40))
    )
    assert html.count(f"{40 - MAX_CLASSES} further classes, nearer to the teacher") == 2
    assert all(name in html for name in names)


def test_hostile_names_stay_names(content, comparison):
    names = tuple(f"{HOSTILE}{k}" for k in range(10))
    content = replace(content, class_names=names, labels=None, metrics={}, comparison=comparison)
    html = render_report(content)
    assert HOSTILE not in html
    assert "<script" not in html
    for figure in build_comparison(content)["figures"]:
        assert not parse(figure["svg"]).findall(".//script")
    many = replace(
        content, class_names=tuple(f"{HOSTILE}{k}" for k in range(40)), comparison=make_comparison(40)
    )
    assert HOSTILE not in render_report(many)


def test_a_comparison_of_other_classes_is_refused(content, comparison):
    with pytest.raises(DataError, match=r"has the class [2-9], and there are 2 classes"):
        build_comparison(replace(content, class_names=("a", "b"), comparison=comparison))


def test_a_distribution_is_drawn_to_scale():
    edges, counts = [0.0, 10.0, 20.0, 30.0, 40.0, 50.0], [0, 0, 4, 8, 0]
    root = parse(draw_distribution("Angle", edges, counts, Spread("angle", 22.0, 31.0, 39.0)))
    first, second = root.findall("rect")
    assert_allclose(2 * float(first.get("height")), float(second.get("height")), atol=0.11)
    # Empty bins are cut off but for one on each side: 10 to 50 is what is shown.
    assert_allclose(float(second.get("width")), (WIDTH - 52) / 4 - 1, atol=0.11)
    whisker, dot = root.find("line[@class='whisker s1']"), root.find("circle")
    start, stop = (float(second.get("x")) + c for c in (0, float(second.get("width"))))
    assert start < float(dot.get("cx")) < float(whisker.get("x2")) < stop
    assert float(whisker.get("x1")) < start


def test_equal_ratios_are_equally_far_apart():
    edges = [2.0**k for k in range(-6, 7)]
    counts = [1] * 12
    root = parse(draw_distribution("r", edges, counts, Spread("r", 0.5, 1, 2), octaves=True, mark=1.0))
    places = [float(box.get("x")) for box in root.findall("rect")]
    steps = [b - a for a, b in pairwise(places)]
    assert_allclose(steps, [steps[0]] * 11, atol=0.11)
    whisker, mark = root.find("line[@class='whisker s1']"), root.find("line[@class='mark']")
    middle = (float(whisker.get("x1")) + float(whisker.get("x2"))) / 2
    assert_allclose(float(mark.get("x1")), middle, atol=0.11)
    texts = {text.text for text in root.findall("text")}
    assert {"1", "4", "16"} <= texts
    assert "2" not in texts


def test_quantiles_beyond_the_bins_stay_on_the_chart():
    counts = [0, 3, 0]
    spread = Spread("r", 1e-6, 1.2, 1e6)
    root = parse(draw_distribution("r", [0.5, 1.0, 2.0, 4.0], counts, spread, octaves=True))
    whisker = root.find("line[@class='whisker s1']")
    assert 0 <= float(whisker.get("x1")) < float(whisker.get("x2")) <= WIDTH


def test_an_empty_histogram_can_be_drawn():
    parse(draw_distribution("r", [0.5, 1.0, 2.0], [0, 0], Spread("r", 9, 9, 9), octaves=True))


def test_rows_share_a_scale_that_reaches_the_mark():
    spreads = [Spread("cat", 2.0, 3.0, 5.0), Spread("dog", 3.0, 4.0, 4.5)]
    root = parse(draw_spreads("Ratio", spreads, mark=1.0))
    dots = [float(dot.get("cx")) for dot in root.findall("circle")]
    mark = float(root.find("line[@class='mark']").get("x1"))
    assert_allclose((dots[1] - mark) / (dots[0] - mark), 3 / 2, rtol=0.01)
    words = "cat: median 3, the middle 80% 2 to 5; dog: median 4, the middle 80% 3 to 4.5"
    assert root.find("desc").text == words
    parse(draw_spreads("Ratio", [Spread(HOSTILE, 1.0, 1.0, 1.0)]))
    assert math.isfinite(mark)

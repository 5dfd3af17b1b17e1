import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from lauter.auditing.advice import refuse_advice
from lauter.auditing.judgement import Cuts, ReviewPlan
from lauter.auditing.report import thumbnails, write_audit_report
from lauter.auditing.report.audit_page import render_audit_report
from lauter.auditing.report.audit_sections import build_cuts
from lauter.auditing.report.audit_selection import select_groups, select_pictures
from lauter.auditing.report.page_data import write_data
from lauter.auditing.report.pictures import encode_webp
from lauter.auditing.report.thumbnails import BYTES_PER_PICTURE, make_thumbnails
from lauter.auditing.report.write import hash_script, read_asset
from lauter.data.dataset import ImageFault
from lauter.errors import DataError

SECTIONS = ["summary", "noise", "images", "map", "curves", "faults", "how"]
VOID = {"meta", "img", "input", "br"}


class Page(HTMLParser):
    """Tags, ids and attributes as a browser would see them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.ids, self.open = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another tag"


@pytest.fixture(scope="module")
def html(audit_content):
    return render_audit_report(audit_content, max_pictures=120)


@pytest.fixture(scope="module")
def hostile(hostile_audit):
    return render_audit_report(hostile_audit, max_pictures=40)


def find_sections(html):
    return re.findall(r'<section id="(\w+)"', html)


def read_block(html, name):
    text = re.search(rf'(?s)<script type="application/json" id="{name}">(.*?)</script>', html).group(1)
    return json.loads(text)


def read_words(html):
    body = re.sub(r"(?s)<script.*?</script>|<style.*?</style>", " ", html)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def test_every_section_is_there_and_the_tags_are_balanced(html):
    assert find_sections(html) == SECTIONS
    page = Page(html)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert html.startswith("<!doctype html>")


def test_whatever_is_pointed_at_is_there(html):
    page = Page(html)
    names = ("aria-labelledby", "aria-describedby", "aria-controls", "for")
    targets = {value for _, name, value in page.attributes if name in names}
    targets |= {value[1:] for _, name, value in page.attributes if name == "href"}
    assert targets <= set(page.ids)
    assert set(re.findall(r'find\("([\w-]+)"\)', html)) <= set(page.ids)


def test_the_page_loads_nothing_and_runs_its_own_script_alone(html):
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|<link|<iframe|<object|eval\(|innerHTML", html)
    page = Page(html)
    assert not [value for _, name, value in page.attributes if name in ("src", "srcset")]
    assert all(not name.startswith("on") for _, name, _ in page.attributes)
    assert "default-src 'none'" in html
    scripts = re.findall(r"(?s)<script>(.*?)</script>", html)
    assert len(scripts) == 1
    assert f"script-src '{hash_script(scripts[0])}'" in html


def test_the_figures_are_there_and_called_estimates(html, audit_content):
    words = read_words(html)
    rate = audit_content.judgement.noise_rate
    assert f"An estimated {100 * rate.value:.1f}% of the given labels are wrong" in words
    assert f"{100 * rate.low:.1f}\N{EN DASH}{100 * rate.high:.1f}%, a 90% interval" in words
    found = round(float(audit_content.judgement.review.expected_found[199]))
    assert f"If you look at 200 images {found} bad labels are expected among them" in words
    assert "Every share, rate and probability on this page is an estimate" in words
    assert "Clean the labels" in words
    assert "AUROC 98.1%" in words
    assert "Brier score 0.0412" in words
    assert "5 images in 2 groups look nearly the same" in words
    assert "2 images stand, nearly the same, in another split as well" in words
    assert "1 min 11 s" in words
    assert "All stages 1 min 15 s" in words


def test_it_says_when_labels_should_be_left_alone(audit_content):
    judgement = audit_content.judgement
    quiet = replace(judgement, advice=replace(judgement.advice, clean=False, reason="Hardly any are wrong."))
    words = read_words(render_audit_report(replace(audit_content, judgement=quiet), max_pictures=0))
    assert "Leave the labels alone Hardly any are wrong." in words


def test_it_expects_nothing_where_nothing_can_be_told(audit_content):
    judgement = audit_content.judgement
    lost = replace(judgement, advice=refuse_advice(0.3))
    html = render_audit_report(replace(audit_content, judgement=lost), max_pictures=0)
    assert "agree with only 30% of their labels" in read_words(html)
    assert "If you look at" not in read_words(html)
    assert "curves" not in find_sections(html)


def test_the_data_are_those_of_the_table(html, audit_content):
    data, pictures = read_block(html, "audit-data"), read_block(html, "pictures")
    tiles = data["tiles"]
    assert len(pictures) == len(tiles["id"]) == 120
    assert {len(column) for column in tiles.values()} == {120}
    assert tiles["id"][:60] == list(audit_content.table["id"].iloc[audit_content.judgement.review.order[:60]])
    rows = audit_content.table.set_index("id").loc[tiles["id"]]
    named = [None if code < 0 else data["classes"][code] for code in tiles["given"]]
    assert named == [None if pd.isna(name) else name for name in rows["given"]]
    assert [data["verdicts"][code] for code in tiles["verdict"]] == list(rows["verdict"])
    known = [value for value in tiles["right"] if value is not None]
    np.testing.assert_allclose(known, rows["p_given_right"].dropna(), atol=6e-5)
    assert data["fingerprint"] == audit_content.fingerprint()


def test_points_on_the_map_lie_where_the_table_says(html, audit_content):
    data = read_block(html, "audit-data")
    points, table = data["map"], audit_content.table.set_index("id")
    without = len(points["id"])
    assert len(points["x"]) == len(table)
    assert set(points["tile"][:without]) == {-1}
    ids = points["id"] + [data["tiles"]["id"][tile] for tile in points["tile"][without:]]
    assert sorted(ids) == sorted(table.index)
    places = table.loc[ids, ["map_x", "map_y"]].to_numpy()
    grid = np.stack([points["x"], points["y"]], axis=1)
    span = np.ptp(places, axis=0).max()
    np.testing.assert_allclose(grid / 10_000 * span + places.min(axis=0), places, atol=span / 10_000)
    assert (grid.min(), grid.max()) == (0, 10_000)


@pytest.mark.parametrize(
    ("changes", "columns", "gone"),
    [
        ({"picture": None}, [], {"images", "map"}),
        ({}, ["map_x", "map_y"], {"map"}),
        ({"faults": ()}, ["leak", "near_duplicate_group"], {"faults"}),
        ({}, ["p_open", "p_suggested_right", "part", "faults"], set()),
    ],
)
def test_missing_parts_are_left_out(audit_content, changes, columns, gone):
    content = replace(audit_content, table=audit_content.table.drop(columns=columns), **changes)
    html = render_audit_report(content, max_pictures=24)
    assert find_sections(html) == [name for name in SECTIONS if name not in gone]
    assert Page(html).open == []
    for name in gone:
        assert f'href="#{name}"' not in html


def test_hostile_names_stay_names(hostile, hostile_audit):
    names = hostile_audit.class_names[:4]
    page = Page(hostile)
    assert page.open == []
    assert page.tags.count("script") == 3
    assert page.tags.count("img") == hostile.count('<img data-tile="') + 1
    assert all(not name.startswith("on") for _, name, _ in page.attributes)
    assert "{{ 7 * 7 }}" in hostile
    data = read_block(hostile, "audit-data")
    assert set(names) <= set(data["tiles"]["id"])
    assert tuple(data["classes"][:4]) == names


def test_a_name_that_is_no_text_does_not_break_the_page(audit_content, tmp_path):
    fault = ImageFault("cat/\udcff.png", "unreadable", "not an image", dropped=True)
    write_audit_report(tmp_path / "a.html", replace(audit_content, faults=(fault,)), max_pictures=0)
    assert "cat/?.png" in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_data_in_the_page_cannot_end_their_block():
    text = write_data(["</script>", "<!--", "&amp;", "\u2028", "\udcff", "é"])
    assert not re.search(r"[<>&\u0080-\uffff]", text)
    assert json.loads(text) == ["</script>", "<!--", "&amp;", "\u2028", "\udcff", "é"]


@pytest.mark.parametrize(("num_classes", "classes_shown"), [(2, 2), (1000, 24)])
def test_few_and_many_classes(audit_content, num_classes, classes_shown):
    rng = np.random.default_rng(0)
    names = tuple(f"class {k}" for k in range(num_classes))
    codes = rng.integers(0, num_classes, len(audit_content.table))
    table = audit_content.table.assign(
        given=np.array(names, dtype=object)[codes], suggested=np.array(names, dtype=object)[codes]
    )
    matrix = 0.9 * np.eye(num_classes) + 0.1 * rng.dirichlet(np.full(num_classes, 0.05), num_classes)
    judgement = replace(
        audit_content.judgement,
        noise_rate_by_class=np.where(np.arange(num_classes) == 1, np.nan, 0.2),
        transition=matrix,
        transition_low=0.5 * matrix,
        transition_high=np.minimum(1, 1.5 * matrix),
    )
    content = replace(audit_content, class_names=names, table=table, judgement=judgement)
    html = render_audit_report(content, max_pictures=8)
    chart = re.search(r"(?s)From true class to given label, %.*?</svg>", html).group(0)
    assert chart.count('class="keep"') == classes_shown
    assert ("classes of the largest confusions" in html) == (classes_shown < num_classes)
    assert len(html) < 1_500_000


@pytest.fixture
def encode_once(monkeypatch):
    """Encode the same picture once per size and quality, so that thousands of pictures take no time."""
    known = {}

    def encode(pixels, *rung):
        key = (id(pixels), *rung)
        if key not in known:
            known[key] = encode_webp(pixels, *rung)
        return known[key]

    monkeypatch.setattr(thumbnails, "encode_webp", encode)


def test_two_thousand_pictures_of_noise_keep_below_25_megabytes(audit_content, tmp_path, encode_once):
    # Noise is the worst there is to encode, and every second picture is larger than a thumbnail.
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (3, *size), dtype=np.uint8) for size in ((200, 260), (96, 96))]
    again = audit_content.table.assign(id=audit_content.table["id"] + " once more")
    content = replace(
        audit_content,
        table=pd.concat([audit_content.table, again], ignore_index=True),
        judgement=replace(audit_content.judgement, verdicts=np.tile(audit_content.judgement.verdicts, 2)),
        picture=lambda row: noise[row % 2],
    )
    path = tmp_path / "audit.html"
    write_audit_report(path, content)
    assert len(read_block(path.read_text(encoding="utf-8"), "pictures")) == 2000
    assert 10_000_000 < path.stat().st_size <= 25_000_000


def test_pictures_are_as_large_as_the_bound_allows():
    smooth = np.tile(np.linspace(0, 255, 400).astype(np.uint8), (3, 300, 1))
    easy = make_thumbnails(lambda row: smooth, range(4))
    assert (easy.widths[0], easy.heights[0]) == (192, 144)
    noise = np.random.default_rng(0).integers(0, 256, (3, 300, 400), dtype=np.uint8)
    hard = make_thumbnails(lambda row: noise, range(4))
    assert hard.widths[0] < 192
    tiny = make_thumbnails(lambda row: noise[:, :8, :8], range(3))
    assert tiny.widths == [8, 8, 8]
    assert make_thumbnails(lambda row: noise, []).payloads == []


def test_a_sample_that_was_too_easy_is_corrected(encode_once):
    noise = np.random.default_rng(0).integers(0, 256, (3, 150, 150), dtype=np.uint8)
    plain = np.zeros((3, 150, 150), dtype=np.uint8)
    # Every 48th picture or so is tried: all of those are plain here.
    found = make_thumbnails(lambda row: plain if row % 2 == 0 else noise, list(range(96)))
    assert sum(map(len, found.payloads)) <= 96 * BYTES_PER_PICTURE
    assert max(found.widths) < 192


def test_what_is_shown_begins_with_the_review_plan():
    rng = np.random.default_rng(0)
    right = rng.random(3000)
    verdict = np.select([right < 0.1, right < 0.2, right < 0.3], ["relabel", "drop", "ask"], "keep")
    table = pd.DataFrame({"given": "x", "verdict": verdict, "p_given_right": right})
    table["near_duplicate_group"] = -1
    table.loc[[2990, 2991], "near_duplicate_group"] = 4
    plan = np.argsort(right)[:1000]
    rows = select_pictures(table, plan, select_groups(table), 200)
    assert len(set(rows)) == len(rows) == 200
    assert rows[:100] == plan[:100].tolist()
    assert {2990, 2991} <= set(rows)
    counts = table["verdict"].iloc[rows].value_counts()
    assert counts[["relabel", "drop", "ask", "keep"]].min() >= 10
    few = select_pictures(table.iloc[:50], np.array([3, 1]), [], 400)
    assert sorted(few) == list(range(50))
    assert few[:2] == [3, 1]
    assert np.all(np.diff(right[few[2:]]) >= 0)


def test_groups_whose_labels_differ_come_first():
    groups = [0, 0, 1, 1, 1, -1, 2, 2, np.nan, 3]
    given = ["a", "a", "b", "b", "b", "c", "a", "b", "a", "a"]
    table = pd.DataFrame({"near_duplicate_group": groups, "given": given})
    assert [rows.tolist() for rows in select_groups(table)] == [[6, 7], [2, 3, 4], [0, 1]]
    assert select_groups(table[["given"]]) == []
    table.loc[7, "given"] = None  # an image without a label contradicts nothing
    assert [rows.tolist() for rows in select_groups(table)] == [[2, 3, 4], [0, 1], [6, 7]]


def test_cuts_name_the_most_that_a_precision_allows(audit_content):
    cuts = Cuts(
        flagged=np.array([10, 20, 40, 80]),
        threshold=np.array([0.01, 0.1, 0.3, 0.9]),
        precision=np.array([1.0, 0.96, 0.9, 0.55]),
        recall=np.array([0.2, 0.4, 0.75, 0.92]),
        chosen=2,
    )
    view = build_cuts(replace(audit_content.judgement, cuts=cuts))
    assert [(row["flagged"], row["precision"]) for row in view["rows"]] == [
        ("10", "100.0%"),
        ("20", "96.0%"),
        ("40", "90.0%"),
        ("80", "55.0%"),
    ]
    assert view["chosen"]["recall"] == "75.0%"
    assert [entry["last"] for entry in view["legend"]] == ["90.0%", "75.0%"]


def test_nothing_to_review_and_nothing_flagged(audit_content):
    nothing = np.array([], dtype=np.int64)
    empty = np.array([])
    judgement = replace(
        audit_content.judgement,
        cuts=Cuts(nothing, empty, empty, empty, 0),
        review=ReviewPlan(nothing, empty),
        transition=np.eye(10),
    )
    html = render_audit_report(replace(audit_content, judgement=judgement), max_pictures=10)
    assert "curves" not in find_sections(html)
    assert "If you look at" not in html
    assert "Most frequent confusions" not in html


def test_another_audit_has_another_fingerprint(audit_content):
    other = audit_content.table.copy()
    other.loc[5, "verdict"] = "drop"
    assert replace(audit_content, title="x").fingerprint() == audit_content.fingerprint()
    assert replace(audit_content, table=other).fingerprint() != audit_content.fingerprint()
    assert len(audit_content.fingerprint()) == 32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns="suggested"), "lacks the column 'suggested'"),
        (lambda table: table.drop(columns="map_y"), "one of map_x and map_y"),
        (lambda table: table.iloc[:-1], "1796 rows and its judgement 1797"),
        (lambda table: table.assign(id="a"), "ids must be unique: 'a'"),
        (lambda table: table.assign(verdict="perhaps"), "verdict must be one of keep, relabel, drop, ask"),
        (lambda table: table.assign(given="cat"), "given must be one of the 10 class names, not 'cat'"),
        (lambda table: table.assign(p_open=1.5), r"p_open must be in 0..1, not 1.5 for 'train/"),
    ],
)
def test_bad_tables_are_named(audit_content, change, message):
    with pytest.raises(DataError, match=message):
        replace(audit_content, table=change(audit_content.table))


def test_classes_of_one_name_are_refused(audit_content):
    with pytest.raises(DataError, match="class names must differ"):
        replace(audit_content, class_names=(*audit_content.class_names, "zero"))


def test_the_file_is_whole_or_not_there(audit_content, tmp_path):
    def broken(row):
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        write_audit_report(tmp_path / "audit.html", replace(audit_content, picture=broken))
    assert list(tmp_path.iterdir()) == []


def measure_contrast(first, second):
    def weigh(colour):
        channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((weigh(first), weigh(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_words_can_be_told_from_their_ground(scheme):
    blocks = re.findall(r"(?s):root \{(.*?)\}", read_asset("report.css"))
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", blocks[scheme]))
    inks = ["ink", "muted", "faint", "accent", *(f"{v}-ink" for v in ("keep", "relabel", "drop", "ask"))]
    pairs = [(ink, ground) for ink in inks for ground in ("paper", "card")]
    pairs += [("on-dark", "accent"), ("ink", "track"), ("muted", "track")]
    low = {pair: measure_contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
    assert {pair: round(value, 2) for pair, value in low.items() if value < 4.5} == {}

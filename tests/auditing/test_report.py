import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from lauter.auditing.report import ReportContent, write_report
from lauter.auditing.report.formats import (
    format_number,
    format_scaled,
    format_seconds,
    format_short_percent,
    read_interval,
)
from lauter.auditing.report.pictures import encode_thumbnail, select_doubtful
from lauter.auditing.report.write import render_report
from lauter.data.dataset import ImageFault
from lauter.errors import DataError

SECTIONS = ["summary", "scores", "noise", "images", "curves", "mimicry", "faults", "how"]
HOSTILE = (
    "<script>document.title='broken'</script>",
    "</script><img src=x onerror=\"document.title='broken'\">",
    '" onmouseover="document.title=1" x="',
    "{{ 7 * 7 }}' -- ]]> &lt;",
)
VOID = {"meta", "img", "input", "br"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium to open the page with")


class Page(HTMLParser):
    """What a browser would see: tags, ids, attributes, text."""

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
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes another tag"


@pytest.fixture(scope="module")
def html(content):
    return render_report(content)


@pytest.fixture(scope="module")
def hostile(content):
    """The same content with names, ids and words that try to break out of the page."""
    table = content.labels.copy()
    ids = content.ids.astype("U120").copy()
    bad_rows = np.argsort(table["p_given_right"].to_numpy())[:4]
    for row, text in zip(bad_rows, HOSTILE, strict=True):
        ids[row] = text
        table.loc[row, ["id", "given", "suggested"]] = [text, HOSTILE[0], HOSTILE[1]]
    metrics = dict(content.metrics)
    metrics["labels"] = {**metrics["labels"], "noise_rate_by_class": dict.fromkeys(HOSTILE, 0.5)}
    metrics["cost"] = {"stages": {HOSTILE[0]: {"seconds": 1.0}}}
    metrics["student"] = {"selected": {HOSTILE[1]: 0.5, "balanced_accuracy": 0.9}}
    return replace(
        content,
        title=HOSTILE[0],
        dataset_name=HOSTILE[1],
        class_names=(*HOSTILE, *content.class_names[4:]),
        ids=ids,
        labels=table,
        metrics=metrics,
        history=[{"stage": HOSTILE[0], "epoch": 0, "loss": {HOSTILE[1]: 1.0}, "metrics": {HOSTILE[2]: 3.0}}],
        faults=[ImageFault(HOSTILE[0], HOSTILE[1], HOSTILE[2], dropped=True)],
        config={HOSTILE[0]: HOSTILE[1]},
    )


def find_sections(html):
    return re.findall(r'<section id="(\w+)"', html)


def test_every_section_is_there_and_the_tags_are_balanced(html):
    assert find_sections(html) == SECTIONS
    page = Page(html)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert html.startswith("<!doctype html>")


def test_links_lead_somewhere(html):
    page = Page(html)
    targets = {value for _, name, value in page.attributes if name == "href"}
    assert targets == {"#main", *(f"#{name}" for name in SECTIONS)}
    named = {value for _, name, value in page.attributes if name == "aria-labelledby"}
    assert {target[1:] for target in targets} | named <= set(page.ids)


def test_the_page_loads_nothing(html):
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(|<link|<iframe|<object", html)
    for tag, name, value in Page(html).attributes:
        if name == "src":
            assert tag == "img"
            assert value.startswith("data:image/webp;base64,")
    assert "default-src 'none'" in html


def test_the_numbers_are_there(html):
    text = re.sub(r"<[^>]+>|\s+", " ", html)
    text = re.sub(r"\s+", " ", text)
    assert "An estimated 29.4% of the given labels are wrong" in text
    assert "(28.2\N{EN DASH}30.6% from sampling alone)" in text
    assert "The student reaches 92.1% balanced accuracy, 7.8 points above the baseline" in text
    assert "3.5 times smaller than its teacher" in text
    assert "student 0.4, teacher 0.4, baseline 0.4" in text
    assert "6 min 52 s 143,760 349 12 TFLOP" in text
    assert "truncated, used" in text


def test_the_page_is_small(html):
    assert len(html.encode()) < 600_000


def test_the_number_of_pictures_is_bounded(content):
    assert render_report(content, max_pictures=30).count("<img ") == 30
    without = render_report(content, max_pictures=0)
    assert "<img " not in without
    assert "<script" not in without


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"history": ()}, {"curves", "mimicry"}),
        ({"faults": ()}, {"faults"}),
        ({"picture": None}, {"images"}),
        ({"metrics": {}}, {"scores"}),
        ({"metrics": {}, "labels": None}, {"summary", "scores", "noise", "images"}),
        ({"metrics": {}, "config": {}}, {"scores", "how"}),
    ],
)
def test_missing_parts_are_left_out(content, changes, gone):
    html = render_report(replace(content, **changes))
    assert find_sections(html) == [name for name in SECTIONS if name not in gone]
    for name in gone:
        assert f'href="#{name}"' not in html


def test_a_report_about_nothing_is_still_a_page(empty_content):
    html = render_report(empty_content)
    assert find_sections(html) == []
    assert Page(html).open == []


def test_agreement_is_not_called_accuracy(content):
    scores = {"selected": {"agreement_with_given": {"value": 0.7, "low": 0.6, "high": 0.8}}}
    html = render_report(replace(content, metrics={"student": scores}))
    assert "Agreement with given labels" in html
    assert "Doubtful labels are no truth" in html
    assert "ccuracy" not in re.sub(r"(?s)<pre.*?</pre>|<script.*?</script>", "", html)


def test_hostile_names_stay_names(hostile):
    html = render_report(hostile)
    page = Page(html)
    assert page.tags.count("script") == 1
    assert all(not name.startswith("on") for _, name, _ in page.attributes)
    assert "{{ 7 * 7 }}" in html
    for text in HOSTILE[:3]:
        assert text not in html


def test_the_script_is_the_one_that_the_policy_allows(html):
    import base64
    import hashlib

    script = re.search(r"(?s)<script>(.*?)</script>", html).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html


def test_many_classes_with_long_names(content):
    names = tuple(f"a rather long name of a class, number {k}" for k in range(300))
    labels = {
        "noise_rate_by_class": {name: k / 300 for k, name in enumerate(names)},
        "transition_matrix": (np.eye(300) * 0.9 + 0.1 / 300).tolist(),
    }
    html = render_report(replace(content, class_names=names, metrics={"labels": labels}))
    assert "276 further classes" in html
    assert "From true class to given label" not in html
    assert html.count("<td>a rather long name") == 16


def test_the_file_is_whole_or_not_there(content, tmp_path):
    def broken(row):
        raise OSError("the disk is gone")

    path = tmp_path / "runs" / "report.html"
    with pytest.raises(OSError, match="the disk is gone"):
        write_report(path, replace(content, picture=broken))
    assert not path.exists()
    write_report(path, content, max_pictures=5)
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    assert path.read_text(encoding="utf-8") == render_report(content, max_pictures=5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns="suggested"), "lacks the column 'suggested'"),
        (lambda table: table.assign(verdict="maybe"), "not 'maybe'"),
        (lambda table: table.assign(id=table["id"] + "x"), "which the data set has not"),
    ],
)
def test_bad_tables_are_named(content, change, message):
    with pytest.raises(DataError, match=message):
        replace(content, labels=change(content.labels))


def test_a_table_in_another_order_shows_the_right_pictures():
    table = pd.DataFrame(
        {"id": ["b", "a"], "given": "x", "verdict": "drop", "suggested": None, "p_given_right": [0.1, 0.2]}
    )
    seen = []

    def picture(row):
        seen.append(row)
        return np.zeros((3, 8, 8), dtype=np.uint8)

    render_report(ReportContent("t", "d", ("x",), ["a", "b"], table, picture))
    assert seen == [1, 0]


def test_each_verdict_gets_its_share_of_pictures():
    rng = np.random.default_rng(0)
    verdicts = ["relabel"] * 500 + ["drop"] * 100 + ["ask"] * 7 + ["keep"] * 900 + ["unlabelled"] * 20
    table = pd.DataFrame({"verdict": verdicts, "p_given_right": rng.random(len(verdicts))})
    rows = select_doubtful(table, 80)
    counts = table["verdict"].iloc[rows].value_counts().to_dict()
    assert counts == {"relabel": 32, "drop": 31, "keep": 10, "ask": 7}
    chosen = table["p_given_right"].iloc[rows]
    assert chosen.is_monotonic_increasing
    relabelled = table[table["verdict"] == "relabel"]["p_given_right"].sort_values()
    assert set(relabelled.index[:32]) <= set(rows)


@pytest.mark.parametrize(
    ("sizes", "expected"), [((3, 0, 0, 0), 3), ((0, 0, 0, 100), 5), ((50, 50, 50, 50), 40), ((0, 0, 0, 0), 0)]
)
def test_no_more_pictures_than_there_are(sizes, expected):
    verdicts = [
        name
        for name, size in zip(("relabel", "drop", "ask", "keep"), sizes, strict=True)
        for _ in range(size)
    ]
    table = pd.DataFrame(
        {"verdict": pd.Series(verdicts, dtype=object), "p_given_right": np.zeros(len(verdicts))}
    )
    assert len(select_doubtful(table, 40)) == expected


def test_thumbnails_keep_shape_and_do_not_grow():
    import base64
    import io

    from PIL import Image

    pixels = np.zeros((3, 300, 200), dtype=np.uint8)
    pixels[0] = 200
    source, width, height = encode_thumbnail(pixels)
    assert (width, height) == (64, 96)
    image = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert image.size == (64, 96)
    np.testing.assert_allclose(np.asarray(image.convert("RGB")).mean((0, 1)), [200, 0, 0], atol=4)
    assert encode_thumbnail(np.zeros((3, 8, 8), dtype=np.uint8))[1:] == (8, 8)
    with pytest.raises(DataError, match=r"uint8 \[3, H, W\], not float32 \[3, 4, 4\]"):
        encode_thumbnail(np.zeros((3, 4, 4), dtype=np.float32))


def test_numbers_are_written_for_people():
    assert [format_seconds(value) for value in (9.5, 59.99, 200, 3599.6, 4320)] == [
        "9.5 s",
        "1 min 0 s",
        "3 min 20 s",
        "1 h 0 min",
        "1 h 12 min",
    ]
    assert format_scaled(78_042) == "78k"
    assert format_scaled(2.94e13, "FLOP") == "29.4 TFLOP"
    assert [format_number(value) for value in (0.0, 0.04567, 1.234, 1234.5, 1e-5)] == [
        "0",
        "0.0457",
        "1.23",
        "1,234",
        "1.00e-05",
    ]
    assert [format_short_percent(value) for value in (0, 0.002, 0.256, 0.996, 1)] == [
        "0%",
        "<1%",
        "26%",
        ">99%",
        "100%",
    ]
    assert read_interval({"value": 0.5, "low": 0.4, "high": 0.6}) == (0.5, 0.4, 0.6)
    assert read_interval(0.5) == (0.5, None, None)


def open_in_chromium(path, *flags):
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", *flags, path.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@needs_chromium
def test_a_browser_runs_no_hostile_script(hostile, tmp_path):
    path = tmp_path / "report.html"
    write_report(path, hostile, max_pictures=20)
    dom = open_in_chromium(path)
    assert "<title>&lt;script&gt;document.title='broken'" in dom
    assert dom.count("<script") == 1
    assert re.search(r'<div class="filters" id="filters">', dom)  # the page's own script did run


@needs_chromium
def test_the_filters_work_from_disk(content, tmp_path):
    path = tmp_path / "report.html"
    # A second script plays the user; the policy that would forbid it is taken out of this copy.
    html = re.sub(
        r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", render_report(content, max_pictures=60)
    )
    steps = """<script>
      const shown = () => [...document.querySelectorAll("#gallery > li")].filter((tile) => !tile.hidden);
      const log = [shown().length];
      document.getElementById("more").click();
      log.push(shown().length);
      document.querySelector("button[data-verdict=drop]").click();
      log.push(new Set(shown().map((tile) => tile.dataset.verdict)).size, shown()[0].dataset.verdict);
      document.querySelector("button[data-verdict='']").click();
      const choice = document.getElementById("class-filter");
      choice.value = "3";
      choice.dispatchEvent(new Event("change"));
      log.push(shown().every((tile) => tile.dataset.codes.split(" ").includes("3")), shown().length > 0);
      document.getElementById("search").value = "no such image";
      document.getElementById("search").dispatchEvent(new Event("input"));
      log.push(shown().length, document.getElementById("none").hidden);
      document.title = JSON.stringify(log);
    </script></body>"""
    path.write_text(html.replace("</body>", steps), encoding="utf-8")
    dom = open_in_chromium(path, "--window-size=1280,900")
    assert '<title>[42,60,1,"drop",true,true,0,false]</title>' in dom

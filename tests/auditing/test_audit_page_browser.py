"""The page of an audit in a real browser: what a person does there, by keys, mouse and touch."""

import csv
import io
import json
from pathlib import Path

import pytest

from lauter.auditing.decisions import apply_decisions, read_decisions
from lauter.auditing.report import write_audit_report

COUNT = 220


@pytest.fixture(scope="module")
def path(audit_content, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "audit.html"
    write_audit_report(path, audit_content, max_pictures=COUNT)
    return path


def wait_for(page, expression):
    """Wait until an expression is true; the page's policy forbids what Playwright's own wait does."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(20)
    pytest.fail(f"not within 4 seconds: {expression}")


def read_ids(page):
    return page.eval_on_selector_all("#gallery .id", "all => all.map((one) => one.title)")


def read_verdicts(page):
    return page.eval_on_selector_all("#gallery .badge", "all => all.map((one) => one.textContent)")


def save_decisions(page):
    with page.expect_download() as waiting:
        page.click("#download")
    assert waiting.value.suggested_filename == "decisions.csv"
    return Path(waiting.value.path())


def download(page):
    text = save_decisions(page).read_bytes().decode("utf-8")
    assert text.startswith("id,given,decision,label\r\n")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def find_rows(audit_content, **wanted):
    """Rows of the page's first pictures, in their order, with these values."""
    table = audit_content.table.iloc[audit_content.judgement.review.order[: COUNT // 2]]
    for name, value in wanted.items():
        table = table[table[name] == value]
    return table


def test_it_opens_from_disk_with_pictures_only_where_one_looks(open_page, path, audit_content):
    page = open_page(path)
    assert page.locator(".tile").count() == 60
    assert read_ids(page)[:5] == list(find_rows(audit_content)["id"][:5])
    assert page.locator("#gallery img[src]").count() == 0
    page.locator(".tile").first.scroll_into_view_if_needed()
    wait_for(page, "document.querySelector('.tile img').naturalWidth === 32")
    assert page.locator("#gallery img[src]").count() < 60
    assert page.inner_text("#shown") == "1\N{EN DASH}60 of 220"
    for _ in range(3):
        page.click("#later")
    assert page.locator(".tile").count() == 40
    assert page.is_disabled("#later")


def test_filters_search_and_order(open_page, path, audit_content):
    page = open_page(path)
    page.click("#verdict-filter [data-verdict=drop]")
    assert set(read_verdicts(page)) == {"drop"}
    assert page.get_attribute("#verdict-filter [data-verdict=drop]", "aria-pressed") == "true"
    page.click("#verdict-filter [data-verdict='']")
    wanted = find_rows(audit_content)["id"].iloc[3]
    page.fill("#search", wanted.upper())
    assert read_ids(page) == [wanted]
    page.fill("#search", "no such image")
    assert page.is_visible("#none")
    page.click("#clear")
    assert page.locator(".tile").count() == 60
    page.select_option("#class-filter", "3")
    labels = page.eval_on_selector_all("#gallery .labels", "all => all.map((one) => one.textContent)")
    assert labels
    assert all("three" in words for words in labels)
    page.select_option("#class-filter", "")
    page.select_option("#sort", "id")
    ids = read_ids(page)
    assert ids == sorted(ids)
    page.select_option("#sort", "kept")
    shares = page.eval_on_selector_all(
        "#gallery .prob:first-of-type .keep", "all => all.map((one) => parseFloat(one.style.width))"
    )
    assert shares == sorted(shares, reverse=True)
    page.select_option("#sort", "review")
    page.select_option("#state-filter", "twins")
    assert set(read_ids(page)) == set(
        audit_content.table.loc[audit_content.table["near_duplicate_group"] >= 0, "id"]
    )


def test_a_review_by_keys(open_page, path, audit_content):
    page = open_page(path)
    rows = find_rows(audit_content)
    relabelled, dropped = (
        find_rows(audit_content, verdict="relabel"),
        find_rows(audit_content, verdict="drop"),
    )
    page.click("#verdict-filter [data-verdict=relabel]")
    page.click("#start")
    for key in ("a", "k", "s", "d"):
        page.keyboard.press(key)
    page.keyboard.press("l")
    page.keyboard.type("eig")
    page.keyboard.press("Enter")
    page.keyboard.press("?")
    assert page.is_visible("#help")
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowLeft")
    assert "relabelled: eight" in page.inner_text("#review-news")
    page.keyboard.press("Escape")
    page.click("#verdict-filter [data-verdict=drop]")
    page.click("#start")
    page.keyboard.press("Enter")
    page.keyboard.press("n")
    page.keyboard.press("x")  # no key of ours
    page.keyboard.press("Escape")
    assert page.inner_text("#progress-words") == "6 of 220 decided"
    assert page.get_attribute("#progress", "value") == "6"
    first = relabelled.iloc[0]
    expected = {
        relabelled["id"].iloc[0]: ("accept", first["suggested"]),
        relabelled["id"].iloc[1]: ("keep", relabelled["given"].iloc[1]),
        relabelled["id"].iloc[2]: ("skip", ""),
        relabelled["id"].iloc[3]: ("drop", ""),
        dropped["id"].iloc[0]: ("accept", ""),
    }
    fifth = relabelled.iloc[4]
    expected[fifth["id"]] = ("keep" if fifth["given"] == "eight" else "relabel", "eight")
    found = download(page)
    assert {row["id"]: (row["decision"], row["label"]) for row in found} == expected
    given = dict(zip(rows["id"], rows["given"], strict=True))
    assert all(row["given"] == given[row["id"]] for row in found)
    reviewed = apply_decisions(audit_content.table, read_decisions(save_decisions(page))).set_index("id")
    assert reviewed.loc[relabelled["id"].iloc[:4], "verdict"].tolist() == [
        "relabel",
        "keep",
        "relabel",
        "drop",
    ]
    assert (reviewed["decided_by"] == "person").sum() == 5  # what was skipped stays the audit's


def test_a_question_is_answered_in_plain_words(open_page, path, audit_content):
    page = open_page(path)
    page.click("#verdict-filter [data-verdict=ask]")
    names = read_ids(page)
    unlabelled = audit_content.table["id"].iloc[0]
    rows = audit_content.table.set_index("id").loc[names]
    assert rows["given"].isna()[unlabelled]
    page.click("#start")
    for _ in names:
        page.keyboard.press("a")
    page.keyboard.press("Escape")
    for row in download(page):
        told = rows.loc[row["id"]]
        same = told["given"] == told["suggested"]
        assert (row["decision"], row["label"]) == ("keep" if same else "relabel", told["suggested"])
    page.fill("#search", unlabelled)
    page.focus(".tile")
    page.keyboard.press("k")
    wait_for(page, "document.getElementById('news').textContent === 'This image has no given label to keep.'")


def test_undo_and_what_a_reload_keeps(open_page, path, audit_content):
    page = open_page(path)
    rows = find_rows(audit_content)
    page.click("#start")
    for key in ("k", "d", "s"):
        page.keyboard.press(key)
    page.keyboard.press("u")
    assert page.inner_text("#review-place") == "3 of 220 · 2 decided"
    page.keyboard.press("Control+z")
    assert page.inner_text("#review-place") == "2 of 220 · 1 decided"
    page.keyboard.press("d")
    page.reload()
    page.wait_for_selector(".tile")
    assert page.inner_text("#progress-words") == "2 of 220 decided"
    assert [row["id"] for row in download(page)] == list(rows["id"][:2])
    page.click("#start")  # goes on where it was left
    assert page.inner_text("#review-place") == "3 of 220 · 2 decided"
    page.keyboard.press("u")
    page.keyboard.press("u")
    page.keyboard.press("u")
    page.keyboard.press("Escape")
    assert page.inner_text("#progress-words") == "Nothing decided yet"
    assert page.is_disabled("#download")


def test_another_audit_does_not_see_these_decisions(open_page, path, audit_content, tmp_path):
    from dataclasses import replace

    other = tmp_path / "other.html"
    table = audit_content.table.copy()
    table.loc[9, "suggested"] = "zero" if table.loc[9, "suggested"] != "zero" else "one"
    write_audit_report(other, replace(audit_content, table=table), max_pictures=10)
    page = open_page(path)
    page.focus(".tile")
    page.keyboard.press("d")
    page.goto(other.as_uri())
    page.wait_for_selector(".tile")
    assert page.inner_text("#progress-words") == "Nothing decided yet"
    page.goto(path.as_uri())
    page.wait_for_selector(".tile")
    assert page.inner_text("#progress-words") == "1 of 220 decided"


def test_without_storage_it_works_and_says_so(open_page, path):
    denied = "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('denied'); } });"
    page = open_page(path, script=denied)
    assert "does not let the page keep decisions" in page.inner_text("#storage-warning")
    page.focus(".tile")
    page.keyboard.press("k")
    assert len(download(page)) == 1


def test_what_lies_in_the_storage_is_not_trusted(open_page, path, audit_content):
    key = f"lauter-audit-{audit_content.fingerprint()}"
    entries = [
        *([0, {"decision": "drop", "label": -1}], [99999, {"decision": "drop", "label": 0}]),
        *([1, {"decision": "<b>", "label": 0}], [2, {"decision": "keep", "label": 77}], 5, None),
    ]
    kept = json.dumps({"decisions": entries, "past": [[1]]})
    page = open_page(path, script=f"localStorage.setItem({key!r}, {kept!r})")
    assert page.inner_text("#progress-words") == "1 of 220 decided"
    page = open_page(path, script=f"localStorage.setItem({key!r}, 'no json')")
    assert page.inner_text("#progress-words") == "Nothing decided yet"


def test_a_downloaded_file_is_loaded_elsewhere(open_page, path, tmp_path):
    page = open_page(path)
    page.focus(".tile")
    for key in ("k", "d", "s"):
        page.keyboard.press(key)
    written = download(page)
    lines = ["id,given,decision,label", *(",".join(row.values()) for row in written), "gone.png,one,drop,"]
    file = tmp_path / "decisions.csv"
    file.write_text("\n".join(lines), encoding="utf-8-sig")
    elsewhere = open_page(path)
    elsewhere.set_input_files("#load-file", file)
    wait_for(elsewhere, "document.getElementById('shown').textContent.startsWith('3 decisions')")
    assert "1 lines do not fit" in elsewhere.inner_text("#shown")
    assert download(elsewhere) == written
    file.write_text("name,label\n", encoding="utf-8")
    elsewhere.set_input_files("#load-file", file)
    wait_for(elsewhere, "document.getElementById('shown').textContent.startsWith('This is no')")


def test_hostile_names_do_nothing_and_come_back_whole(open_page, hostile_audit, tmp_path):
    path = tmp_path / "audit.html"
    write_audit_report(path, hostile_audit, max_pictures=30)
    page = open_page(path)
    names = hostile_audit.class_names[:4]
    assert page.title() == names[0]
    assert page.eval_on_selector_all("script", "all => all.length") == 3
    assert page.eval_on_selector_all("[onerror], [onmouseover], [src=x]", "all => all.length") == 0
    assert read_ids(page)[:4] == list(names)
    page.select_option("#sort", "given")
    page.select_option("#sort", "review")
    page.click("#start")
    for name in names:
        page.keyboard.press("l")
        page.keyboard.insert_text(name[:12])
        assert page.locator("#chooser-list [role=option]").first.inner_text().strip()
        page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    page.hover("#map-canvas", position={"x": 500, "y": 300})
    found = download(page)
    assert {row["id"] for row in found} == set(names)
    assert {row["label"] for row in found} == set(names)
    given = hostile_audit.table.set_index("id")["given"]
    assert all(row["given"] == given[row["id"]] for row in found)
    assert page.title() == names[0]
    reviewed = apply_decisions(hostile_audit.table, read_decisions(save_decisions(page))).set_index("id")
    for row in found:
        told = reviewed.loc[row["id"]]
        assert told["decided_by"] == "person"
        assert row["label"] == (told["given"] if told["verdict"] == "keep" else told["suggested"])
    assert (reviewed["decided_by"] == "person").sum() == len(names)


def test_mouse_alone_and_the_chooser(open_page, path, audit_content):
    page = open_page(path)
    first = find_rows(audit_content).iloc[0]
    page.click(".tile >> nth=0")
    assert page.get_attribute("#review-image", "alt") == f"Image {first['id']}"
    page.click("#review-choices [data-action=label]")
    assert page.evaluate("document.activeElement.id") == "chooser-input"
    # The suggested class comes first where nothing is typed.
    assert page.inner_text("#choice-0") == first["suggested"]
    page.keyboard.press("ArrowDown")
    assert page.get_attribute("#chooser-input", "aria-activedescendant") == "choice-1"
    page.keyboard.press("Escape")
    assert page.is_hidden("#chooser")
    assert page.is_visible("#review")
    page.click("#review-choices [data-action=label]")
    page.click("#chooser-list [data-code='9']")
    page.click("#review-back")
    assert page.get_attribute("#review-choices [data-action=label]", "aria-pressed") == "true"
    page.click("#review-undo")
    assert page.inner_text("#review-place") == "1 of 220 · 0 decided"
    page.click("#review-close")
    # The focus returns to the picture that was looked at.
    assert page.evaluate("document.activeElement.dataset.tile") == "0"


def test_the_map_shows_what_is_pointed_at(open_page, path):
    page = open_page(path)
    canvas = page.locator("#map-canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box["width"] > 900
    page.focus("#map-canvas")
    page.keyboard.press("ArrowRight")
    assert page.is_visible("#map-card")
    seen = page.inner_text("#map-card .id")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    assert page.inner_text("#map-card .id") != seen
    page.keyboard.press("+")
    page.keyboard.press("-")
    page.keyboard.press("Escape")
    assert page.is_hidden("#map-card")
    for verdict in ("keep", "relabel", "ask"):
        page.click(f"#map-verdicts [data-verdict={verdict}]")
    page.evaluate("document.activeElement.blur()")
    found = set()
    for x in range(300, 900, 40):
        canvas.hover(position={"x": x, "y": box["height"] / 4})
        if page.is_visible("#map-card"):
            found.add(page.inner_text("#map-card .badge"))
    assert found == {"drop"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_at_any_width(open_page, path, width, scheme):
    page = open_page(path, width, 844, color_scheme=scheme, has_touch=width < 500, reduced_motion="reduce")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.click("#start")
    assert page.evaluate("document.getElementById('review').scrollWidth") <= width
    box = page.locator("#review-image").bounding_box()
    frame = page.locator(".review-picture").bounding_box()
    assert box["y"] >= frame["y"]
    assert box["y"] + box["height"] <= frame["y"] + frame["height"] + 1
    if width < 500:
        page.tap("#review-choices [data-action=accept]")
        page.tap("#review-close")
        page.locator("#map-canvas").tap(position={"x": 100, "y": 200})
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(250, 248, 244)", "dark": "rgb(20, 24, 26)"}[scheme]


def test_every_control_has_a_name_and_every_picture_words(open_page, path):
    page = open_page(path)
    page.click("#start")
    page.keyboard.press("l")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, progress, dialog, canvas")]
          .filter((one) => !(one.textContent.trim() || one.ariaLabel || one.labels?.length
            || one.getAttribute("aria-labelledby") || one.querySelector("img[alt]:not([alt=''])")))
          .map((one) => one.outerHTML.slice(0, 80))"""
    )
    assert nameless == []
    assert page.evaluate("[...document.images].filter((one) => !one.hasAttribute('alt')).length") == 0
    assert page.get_attribute("#review-news", "aria-live") == "polite"

"""The docs' tables come from result files and from nothing else."""

from pathlib import Path

import pytest

from lauter.bench.pages import PAGES, Page, render_page, write_pages
from lauter.bench.records import Record, ResultFile
from lauter.errors import ConfigError

PAGE = Page(
    "main", ("one", "two"), {"balanced_accuracy_last": "accuracy"}, ("ours", "ce"), "ce", files=("page.md",)
)


def make_file(*records: tuple[str, str, int, float]) -> ResultFile:
    return ResultFile({"cpu": "abacus", "cores": 2}, {"lauter": "1"}, "lauter bench").append(
        Record("noisy", data, method, seed, "balanced_accuracy_last", value)
        for data, method, seed, value in records
    )


def test_a_table_has_a_column_for_each_data_set_and_the_paired_difference() -> None:
    file = make_file(
        ("one", "ours", 0, 0.7), ("one", "ours", 1, 0.8), ("one", "ce", 0, 0.6), ("one", "ce", 1, 0.6)
    )
    text = render_page(file, PAGE)
    assert "one, accuracy, against ce" in text
    assert "two" not in text  # nothing was measured there
    assert "75.0" in text
    assert "60.0" in text
    assert "+15.0" in text
    assert "abacus" in text


def test_a_page_of_one_data_set_leaves_its_name_out_of_the_headings_and_may_say_what_its_cells_are() -> None:
    page = Page("one", ("one",), {"balanced_accuracy_last": "accuracy"}, ("ce",), note="Medians of 5 runs.")
    text = render_page(make_file(("one", "ce", 0, 0.6)), page)
    assert "| method | accuracy |" in text
    assert "Medians of 5 runs." in text
    assert "One seed" not in text


def test_tables_without_records_are_left_as_they_are(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- results:main -->\nold\n<!-- /results:main -->\n")
    assert write_pages(tmp_path, tmp_path, [PAGE]) == []
    make_file().write(tmp_path / "way-quick.json")
    assert write_pages(tmp_path, tmp_path, [PAGE]) == []
    assert "old" in page.read_text()
    make_file(("one", "ce", 0, 0.5)).write(tmp_path / "way-quick.json")
    assert write_pages(tmp_path, tmp_path, [PAGE]) == ["main"]
    assert "old" not in page.read_text()
    assert "50.0" in page.read_text()


def test_missing_markers_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("nothing")
    make_file(("one", "ce", 0, 0.5)).write(tmp_path / "way-quick.json")
    with pytest.raises(ConfigError, match="results:main"):
        write_pages(tmp_path, tmp_path, [PAGE])


def test_every_page_has_its_markers_in_the_docs() -> None:
    root = Path(__file__).parents[2]
    for page in PAGES:
        for name in page.files:
            assert f"<!-- results:{page.name} -->" in (root / name).read_text(encoding="utf-8")

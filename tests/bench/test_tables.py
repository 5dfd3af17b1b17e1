import pytest

from lauter.bench.records import Record, ResultFile
from lauter.bench.tables import Column, describe_file, find_columns, render_table, update_markdown
from lauter.errors import ConfigError


def make_records(values, metric="balanced_accuracy", data="digits"):
    return [
        Record("noisy", data, method, seed, metric, value)
        for method, row in values.items()
        for seed, value in enumerate(row)
    ]


def test_cells_hold_mean_and_sample_standard_deviation():
    records = make_records({"ce": [0.5, 0.6, 0.7], "ff": [0.7, 0.75, 0.8]})
    assert render_table(records, find_columns(records)).splitlines() == [
        "| method | digits: balanced accuracy, % |",
        "| --- | ---: |",
        "| ce | 60.0 ± 10.0 |",
        "| ff | 75.0 ± 5.0 |",
        "",
        "Mean ± standard deviation over 3 seeds.",
    ]


def test_differences_are_paired_by_seed():
    # Differences .2, .15, .1: mean 15 points, sd 5, t(2, .975) = 4.3027, so 15 ± 12.42.
    records = make_records({"ce": [0.5, 0.6, 0.7], "ff": [0.7, 0.75, 0.8]})
    lines = render_table(records, find_columns(records, against="ce")).splitlines()
    assert lines[2] == "| ce | 60.0 ± 10.0 | — |"
    assert lines[3] == "| ff | 75.0 ± 5.0 | +15.0 [+2.6, +27.4] |"
    assert "paired by seed" in lines[-1]


def test_an_equal_method_differs_by_nothing_and_is_no_gap():
    records = make_records({"ce": [0.5, 0.6], "ff": [0.5, 0.6]})
    assert "| ff | 55.0 ± 7.1 | +0.0 [+0.0, +0.0] |" in render_table(
        records, find_columns(records, against="ce")
    )


def test_different_numbers_of_seeds_are_stated_in_each_cell():
    records = make_records({"ce": [0.5, 0.6, 0.7], "ff": [0.7]})
    text = render_table(records, find_columns(records, against="ce"))
    assert "| ce | 60.0 ± 10.0 (n=3) |" in text
    assert "| ff | 70.0 (n=1) | +20.0 (n=1) |" in text
    assert "over n seeds" in text


def test_one_seed_has_no_standard_deviation_and_gaps_are_shown():
    records = make_records({"ce": [0.5]}) + make_records({"ff": [12.34]}, metric="seconds", data="cifar10")
    text = render_table(records, find_columns(records))
    assert text.splitlines()[2:4] == ["| ce | 50.0 | — |", "| ff | — | 12.3 |"]
    assert text.endswith("One seed: no standard deviation.")


def test_rows_and_columns_can_be_chosen_and_ordered():
    records = make_records({"ce": [0.5], "ff": [0.75]}) + make_records({"ce": [3.0]}, metric="seconds")
    text = render_table(records, [Column("digits", "seconds", title="s", digits=0)], methods=["ff", "ce"])
    assert text.splitlines()[:4] == ["| method | s |", "| --- | ---: |", "| ff | — |", "| ce | 3 |"]
    assert [column.metric for column in find_columns(records, metrics=["seconds", "f1"])] == ["seconds"]


def test_a_bar_in_a_name_does_not_end_the_cell():
    records = make_records({"a|b": [0.5]})
    assert r"| a\|b | 50.0 |" in render_table(records, find_columns(records))


def test_the_same_records_give_the_same_text():
    records = make_records({"ce": [0.5, 0.6], "ff": [0.7, 0.75]})
    assert render_table(records, find_columns(records)) == render_table(list(records), find_columns(records))


def test_bad_tables_are_named():
    records = make_records({"ce": [0.5]})
    with pytest.raises(ConfigError, match="no records"):
        render_table([], find_columns(records))
    with pytest.raises(ConfigError, match="no record of method 'ff'; there are ce"):
        render_table(records, find_columns(records), methods=["ff"])
    with pytest.raises(ConfigError, match="no record of method 'ff'"):
        render_table(records, find_columns(records, against="ff"))
    with pytest.raises(ConfigError, match="these records are of noisy, speed"):
        render_table([*records, Record("speed", "digits", "ce", 0, "seconds", 1.0)], find_columns(records))


def test_a_file_is_described_in_a_sentence():
    file = ResultFile(
        {"cpu": "Some CPU", "cores": 2, "memory_gib": 16, "accelerator": None, "system": "Linux"},
        {"lauter": "0.1.0"},
        "lauter bench noisy",
    )
    assert describe_file(file) == (
        "Measured on Some CPU, 2 cores, 16 GiB memory, Linux; lauter 0.1.0. Written by `lauter bench noisy`."
    )


def test_markdown_is_updated_between_its_markers(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("before\n<!-- results:a -->\nold\n<!-- /results:a -->\nafter\n<!-- results:b -->\n")
    assert update_markdown(path, "a", "| new |\n")
    assert path.read_text() == (
        "before\n<!-- results:a -->\n| new |\n<!-- /results:a -->\nafter\n<!-- results:b -->\n"
    )
    assert not update_markdown(path, "a", "| new |")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", r"<!-- results:a --> 0 times"),
        ("<!-- results:a -->", r"<!-- /results:a --> 0 times"),
        ("<!-- results:a --><!-- results:a --><!-- /results:a -->", "2 times"),
        ("<!-- /results:a --><!-- results:a -->", "swap them"),
    ],
)
def test_missing_markers_are_named(tmp_path, text, message):
    path = tmp_path / "page.md"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        update_markdown(path, "a", "table")
    assert path.read_text() == text

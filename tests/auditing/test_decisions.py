"""A person's decisions: what each of them does to the table, and which files are refused."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import lauter
from lauter.auditing.decisions import (
    DECISIONS,
    ReviewCounts,
    apply_decisions,
    count_decisions,
    read_decisions,
)
from lauter.errors import DataError

Decision = tuple[str, str | None, str, str | None]


@pytest.fixture
def table() -> pd.DataFrame:
    """One image of each verdict, two without a label, one that is kept and not looked at."""
    return pd.DataFrame(
        [
            ("kept", "cat", "keep", "cat"),
            ("relabelled", "cat", "relabel", "dog"),
            ("dropped", "cow", "drop", "dog"),
            ("asked", "cow", "ask", "cow"),
            ("doubted", "cow", "ask", "dog"),
            ("bare", None, "relabel", "dog"),
            ("blank", None, "ask", "cat"),
            ("other", "dog", "keep", "dog"),
        ],
        columns=["id", "given", "verdict", "suggested"],
    ).assign(p_given_right=np.linspace(0, 1, 8))


def decide(*rows: Decision) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["id", "given", "decision", "label"])


def words_of(table: pd.DataFrame, name: str) -> tuple[str, str, str]:
    row = table.set_index("id").loc[name]
    return row["verdict"], row["suggested"], row["decided_by"]


EACH: list[tuple[Decision, tuple[str, str]]] = [
    (("kept", "cat", "accept", None), ("keep", "cat")),
    (("kept", "cat", "accept", "cat"), ("keep", "cat")),
    (("kept", "cat", "drop", None), ("drop", "cat")),
    (("kept", "cat", "relabel", "cow"), ("relabel", "cow")),
    (("relabelled", "cat", "accept", None), ("relabel", "dog")),
    (("relabelled", "cat", "accept", "dog"), ("relabel", "dog")),
    (("relabelled", "cat", "keep", None), ("keep", "cat")),
    (("relabelled", "cat", "keep", "cat"), ("keep", "cat")),
    (("relabelled", "cat", "relabel", "cat"), ("keep", "cat")),
    (("dropped", "cow", "accept", None), ("drop", "dog")),
    (("dropped", "cow", "keep", None), ("keep", "cow")),
    (("asked", "cow", "accept", None), ("keep", "cow")),
    (("doubted", "cow", "accept", "dog"), ("relabel", "dog")),
    (("doubted", "cow", "drop", "cow"), ("drop", "dog")),
    (("bare", None, "accept", "dog"), ("relabel", "dog")),
    (("bare", None, "drop", None), ("drop", "dog")),
    (("blank", None, "relabel", "cow"), ("relabel", "cow")),
]


@pytest.mark.parametrize(("decision", "expected"), EACH, ids=["-".join(map(str, case[0])) for case in EACH])
def test_a_decision_changes_its_row_and_no_other(
    decision: Decision, expected: tuple[str, str], table: pd.DataFrame
) -> None:
    before = table.copy()
    reviewed = apply_decisions(table, decide(decision))
    pd.testing.assert_frame_equal(table, before)
    assert words_of(reviewed, decision[0]) == (*expected, "person")
    others = (table["id"] != decision[0]).to_numpy()
    untouched = ["id", "given", "verdict", "suggested", "p_given_right"]
    pd.testing.assert_frame_equal(reviewed.loc[others, untouched], table.loc[others], check_dtype=False)
    assert set(reviewed.loc[others, "decided_by"]) == {"audit"}
    same = ["id", "given", "p_given_right"]  # the audit's word on probabilities stays
    pd.testing.assert_frame_equal(reviewed[same], table[same])


def test_what_is_skipped_stays_the_audits(table: pd.DataFrame) -> None:
    skipped = decide(*((name, given, "skip", None) for name, given in table[["id", "given"]].to_numpy()))
    for decisions in (skipped, skipped.iloc[:0]):
        reviewed = apply_decisions(table, decisions)
        pd.testing.assert_frame_equal(reviewed[list(table.columns)], table, check_dtype=False)
        assert set(reviewed["decided_by"]) == {"audit"}


def test_decisions_of_two_people_may_meet_where_they_mean_the_same(table: pd.DataFrame) -> None:
    both = decide(
        ("relabelled", "cat", "skip", None),
        ("relabelled", "cat", "accept", "dog"),
        ("relabelled", "cat", "relabel", "dog"),
        ("asked", "cow", "keep", None),
        ("asked", "cow", "accept", None),
    )
    reviewed = apply_decisions(table, both)
    assert words_of(reviewed, "relabelled") == ("relabel", "dog", "person")
    contrary = decide(
        ("relabelled", "cat", "accept", "dog"),
        ("relabelled", "cat", "keep", None),
        ("asked", "cow", "drop", None),
        ("asked", "cow", "keep", None),
    )
    with pytest.raises(DataError, match=r"2 ids are decided twice, and not alike: 'relabelled', 'asked'; le"):
        apply_decisions(table, contrary)


def test_sittings_add_up_and_the_last_word_counts(table: pd.DataFrame) -> None:
    first = apply_decisions(table, decide(("kept", "cat", "drop", None), ("asked", "cow", "relabel", "dog")))
    second = apply_decisions(first, decide(("asked", "cow", "keep", None), ("other", "dog", "accept", "dog")))
    assert words_of(second, "kept") == ("drop", "cat", "person")
    assert words_of(second, "asked") == ("keep", "cow", "person")
    assert words_of(second, "other") == ("keep", "dog", "person")
    # The same file again changes nothing, and nothing of the audit is left to accept where it was overruled.
    pd.testing.assert_frame_equal(
        apply_decisions(second, decide(("asked", "cow", "keep", None), ("kept", "cat", "accept", None))),
        second,
    )
    for label in ("dog", None):
        with pytest.raises(DataError, match="'asked' is accepted as the audit said, but was decided before"):
            apply_decisions(second, decide(("asked", "cow", "accept", label)))


def test_the_files_words_are_read_as_they_stand(table: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "decisions.csv"
    path.write_bytes(
        b'\xef\xbb\xbfid;given;decision;label\r\nrelabelled;cat;keep;cat\r\n"bare";;accept;"dog"\r\n;;;\r\n'
    )
    reviewed = lauter.apply_decisions(table, read_decisions(path))
    assert words_of(reviewed, "relabelled") == ("keep", "cat", "person")
    assert words_of(reviewed, "bare") == ("relabel", "dog", "person")
    path.write_text("id,given,decision\n")
    with pytest.raises(
        DataError, match=r"decisions\.csv has no column 'label'; it must have id, given, deci"
    ):
        read_decisions(path)


def test_numbers_and_signs_are_names_like_others() -> None:
    names = ["007", "1e5", "=cmd()", "\u2028</script>", "NA", "nan"]
    table = pd.DataFrame({"id": names, "given": "10", "verdict": "ask", "suggested": "nan"})
    reviewed = apply_decisions(table, decide(*((name, "10", "relabel", "nan") for name in names)))
    assert reviewed["suggested"].tolist() == ["nan"] * 6
    assert reviewed["verdict"].tolist() == ["relabel"] * 6


def test_a_class_that_the_columns_state_may_be_chosen_unseen(table: pd.DataFrame) -> None:
    chosen = decide(("kept", "cat", "relabel", "yak"))
    with pytest.raises(
        DataError, match="1 labels are no class of the label table: 'yak' for 'kept'; its clas"
    ):
        apply_decisions(table, chosen)
    stated = table.assign(suggested=pd.Categorical(table["suggested"], ["cat", "cow", "dog", "yak"]))
    assert words_of(apply_decisions(stated, chosen), "kept") == ("relabel", "yak", "person")


WRONG: list[tuple[Sequence[Decision], str]] = [
    (
        [(f"gone{number}", "cat", "keep", None) for number in range(4)],
        r"4 of the 4 decisions are about images that the label table has not: 'gone0', 'gone1', 'gone2', \.",
    ),
    ([("gone", "cat", "skip", None)], "a spreadsheet program has changed the ids"),
    (
        [("kept", "dog", "keep", None), ("bare", "cat", "drop", None), ("other", "dog", "keep", None)],
        r"another audit: in 2 of 3 the given label is another .* 'kept' \(dog there, cat in the table\), "
        r"'bare' \(cat there, no label in the table\)",
    ),
    ([("kept", None, "keep", None)], r"'kept' \(no label there, cat in the table\)"),
    (
        [("kept", "cat", "Keep", None), ("other", "dog", "", None)],
        "2 decisions are none of accept, keep, relabel, drop, skip: Keep for 'kept', an empty cell for 'oth",
    ),
    ([("kept", "cat", "relabel", "Cat")], r"'Cat' for 'kept'; its classes are cat, cow, dog"),
    ([("kept", "cat", "relabel", None)], "1 decisions cannot be: 'kept' relabels without a label; nothing"),
    ([("bare", None, "keep", None)], "'bare' keeps a label, but the image has none"),
    ([("kept", "cat", "keep", "dog")], "'kept' keeps the label 'cat' and names 'dog' beside it"),
    (
        [("relabelled", "cat", "accept", "cow")],
        "'relabelled' accepts 'cow', where the table says relabel with 'dog'",
    ),
    ([("dropped", "cow", "accept", "cow")], "accepts 'cow', where the table says drop with None"),
]


@pytest.mark.parametrize(("rows", "message"), WRONG)
def test_what_cannot_be_is_refused(rows: Sequence[Decision], message: str, table: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=message):
        apply_decisions(table, decide(*rows))


def test_tables_without_their_columns_are_refused(table: pd.DataFrame) -> None:
    chosen = decide(("kept", "cat", "keep", None))
    with pytest.raises(
        DataError, match="the decisions have no column 'decision'; they must have id, given, d"
    ):
        apply_decisions(table, chosen.drop(columns="decision"))
    with pytest.raises(DataError, match="the label table has no column 'suggested'"):
        apply_decisions(table.drop(columns="suggested"), chosen)


def test_counts_by_hand(table: pd.DataFrame) -> None:
    decisions = decide(
        ("kept", "cat", "accept", "cat"),
        ("relabelled", "cat", "keep", None),
        ("dropped", "cow", "accept", None),
        ("asked", "cow", "accept", None),
        ("doubted", "cow", "relabel", "cat"),
        ("bare", None, "drop", None),
        ("blank", None, "skip", None),
        ("kept", "cat", "skip", None),
    )
    assert {row.decision for row in decisions.itertuples()} == set(DECISIONS)
    counts = count_decisions(table, apply_decisions(table, decisions), decisions)
    assert counts == ReviewCounts(agreed=2, kept=2, relabelled=1, dropped=1, skipped=1, left=2)

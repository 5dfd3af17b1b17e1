"""``lauter apply``: a person's decisions in, the reviewed table beside the audit's, which stays as it was."""

from pathlib import Path

import pandas as pd
import pytest

from lauter.__main__ import main

ROWS = [
    ("a.png", "cat", "relabel", "dog"),
    ("b.png", "dog", "keep", "dog"),
    ("c.png", "dog", "ask", "cat"),
    ("d.png", "cat", "drop", "dog"),
]
DECISIONS = "id,given,decision,label\na.png,cat,accept,dog\nc.png,dog,keep,\nb.png,dog,skip,\n"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = pd.DataFrame(ROWS, columns=["id", "given", "verdict", "suggested"])
    Path("my run").mkdir()
    table.to_parquet("my run/labels.parquet", index=False)
    Path("decisions.csv").write_text(DECISIONS)


def read_words(path: str) -> list[list[str]]:
    table = pd.read_csv(path) if path.endswith("csv") else pd.read_parquet(path)
    return table[["id", "verdict", "suggested", "decided_by"]].to_numpy().tolist()


REVIEWED = [
    ["a.png", "relabel", "dog", "person"],
    ["b.png", "keep", "dog", "audit"],
    ["c.png", "keep", "dog", "person"],
    ["d.png", "drop", "dog", "audit"],
]


def test_the_reviewed_table_stands_beside_the_audits(capsys: pytest.CaptureFixture[str]) -> None:
    before = Path("my run/labels.parquet").read_bytes()
    assert main(["apply", "decisions.csv", "--labels", "my run/labels.parquet"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "decisions   1 as the table had it, 1 keep their label after all, 0 get another, 0 are dropped; "
        "1 skipped",
        "left        2 of 4 images stay as the table has them",
        "labels      my run/labels.reviewed.parquet and my run/labels.reviewed.csv: 2 keep, 1 relabel, "
        "1 drop",
        "lauter train DATA --labels 'my run/labels.reviewed.parquet'",
    ]
    assert Path("my run/labels.parquet").read_bytes() == before
    for name in ("parquet", "csv"):
        assert read_words(f"my run/labels.reviewed.{name}") == REVIEWED
    assert {entry.name for entry in Path("my run").iterdir()} == {
        *("labels.parquet", "labels.reviewed.parquet", "labels.reviewed.csv")
    }


def test_nothing_is_replaced_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["apply", "decisions.csv", "--labels", "my run/labels.parquet"]
    Path("my run/labels.reviewed.csv").write_text("mine")
    assert main(words) == 2
    assert (
        "labels.reviewed.csv exists already; choose another --out, or replace it" in capsys.readouterr().err
    )
    assert not Path("my run/labels.reviewed.parquet").exists()
    assert main([*words, "--overwrite"]) == 0
    assert read_words("my run/labels.reviewed.csv") == REVIEWED
    # A second sitting on the reviewed table: it would be its own output, which has to be asked for.
    Path("decisions.csv").write_text("id,given,decision,label\nd.png,cat,relabel,dog\n")
    words = ["apply", "decisions.csv", "--labels", "my run/labels.reviewed.parquet"]
    assert main(words) == 2
    assert main([*words, "--out", "my run/labels.reviewed.parquet"]) == 2
    capsys.readouterr()
    assert main([*words, "--overwrite"]) == 0
    assert read_words("my run/labels.reviewed.csv")[0] == REVIEWED[0]
    assert read_words("my run/labels.reviewed.csv")[3] == ["d.png", "relabel", "dog", "person"]


@pytest.mark.parametrize("name", ["new/table.csv", "new/table.parquet"])
def test_another_place_gets_one_file(name: str) -> None:
    assert main(["apply", "decisions.csv", "--labels", "my run/labels.parquet", "--out", name]) == 0
    assert read_words(name) == REVIEWED
    assert [entry.name for entry in Path("new").iterdir()] == [Path(name).name]
    assert [entry.name for entry in Path("my run").iterdir()] == ["labels.parquet"]


@pytest.mark.parametrize(
    ("decisions", "words", "message"),
    [
        (DECISIONS, ["--out", "table.xlsx"], "--out must end in .csv or .parquet, not 'table.xlsx'"),
        (DECISIONS, ["--labels", "gone.parquet"], "the label table gone.parquet is missing"),
        (DECISIONS, ["--labels", "my run"], "my run is a folder; name the label table in it"),
        (DECISIONS, ["--labels", "decisions.csv"], "decisions.csv has no column 'verdict'"),
        (DECISIONS + "a.png,cat,drop,\n", [], "1 ids are decided twice, and not alike: 'a.png'"),
        (DECISIONS.replace("c.png,dog", "c.png,cow"), [], "the decisions belong to another audit"),
        (DECISIONS.replace("a.png", "A.PNG"), [], "1 of the 3 decisions are about images that"),
        (DECISIONS.replace("given", "label"), [], "decisions.csv has no column 'given'"),
        ("PK\x03\x04", [], "decisions.csv is an Excel or LibreOffice workbook"),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_is_written(
    decisions: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("decisions.csv").write_text(decisions)
    assert main(["apply", "decisions.csv", "--labels", "my run/labels.parquet", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert {entry.name for entry in Path().rglob("*")} == {"decisions.csv", "my run", "labels.parquet"}

"""Text tables as people leave them: what is read exactly, and what is refused with a reason."""

from pathlib import Path

import pytest

from lauter.auditing.spreadsheet import read_spreadsheet
from lauter.errors import DataError

COLUMNS = ("id", "label")


@pytest.mark.parametrize(
    "content",
    [
        "id,label\n007,1E5\nb;c,NA\n",
        "id,label\r\n007,1E5\r\nb;c,NA\r\n",
        "\ufeffid,label\r\n007,1E5\r\nb;c,NA\r\n",
        'id;label\r\n007;1E5\r\n"b;c";NA\r\n;\r\n',
        'sep=;\r\nid;label\r\n007;1E5\r\n"b;c";NA\r\n',
        "id\tlabel\n007\t1E5\nb;c\tNA\n",
        '"id","label"\n"007","1E5"\n"b;c","NA"\n,\n\n',
        " id , label\n007,1E5\nb;c,NA",
    ],
)
def test_cells_are_text_whatever_the_signs(content: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content.encode())
    table = read_spreadsheet(path, COLUMNS)
    assert table.to_dict("list") == {"id": ["007", "b;c"], "label": ["1E5", "NA"]}


def test_empty_cells_are_missing_and_other_columns_stay(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text('note,label,id\n,,"a, ""b""\nc"\n"x ",-1,ü.png\n', encoding="utf-8")
    table = read_spreadsheet(path, COLUMNS)
    assert table.to_dict("list") == {
        "note": [None, "x "],
        "label": [None, "-1"],
        "id": ['a, "b"\nc', "ü.png"],
    }


def test_a_header_alone_is_an_empty_table(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("id,label\n")
    table = read_spreadsheet(path, COLUMNS)
    assert (list(table.columns), len(table)) == (["id", "label"], 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"no column 'id'; it must have id, label, and its first line says nothing"),
        (b"id;name\n", r"no column 'label'; it must have id, label, and its first line says id, name"),
        (b"id,label,id\n", "has the column 'id' more than once"),
        (b"id,label\na,b\nc\n", r"line 3: 1 cells where the first line names 2 columns"),
        (b"id;label\na;b;c\n", r"line 2: 3 cells where the first line names 2 columns; a cell with a ';'"),
        (b'id,label\n"a"b,c\n', r"line 2: .*; save it as CSV in UTF-8"),
        (b'id,label\n"a,c\n', r"line 2: .*; save it as CSV in UTF-8"),
        ("id,label\nM\u00fcll,a\n".encode("cp1252"), "line 2: this is no text in UTF-8; save it as CSV in"),
        ("id,label\n".encode("utf-16"), "is UTF-16 text and no CSV"),
        (b"PK\x03\x04rest", "is an Excel or LibreOffice workbook and no CSV"),
        (b"\xd0\xcf\x11\xe0rest", "is an Excel workbook and no CSV"),
        (b"PAR1rest", "is a Parquet file and no CSV"),
    ],
)
def test_what_cannot_be_read_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_spreadsheet(path, COLUMNS)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.csv is missing"):
        read_spreadsheet(tmp_path / "gone.csv", COLUMNS)
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_spreadsheet(tmp_path, COLUMNS)

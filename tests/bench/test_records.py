import dataclasses
import json
import os
import platform
import socket

import pytest

from lauter.bench.records import Key, Record, ResultFile, machine, read_parts, versions, write_part
from lauter.errors import ConfigError, RunError


def make_record(value=0.5, **changes):
    fields = {"suite": "noisy", "data": "digits", "method": "ce", "seed": 0, "metric": "balanced_accuracy"}
    return Record(**{**fields, **changes}, value=value)


def test_the_machine_is_described_without_names_of_hosts_or_folders():
    text = json.dumps(machine(), allow_nan=False)
    assert machine()["cores"] >= 1
    assert machine()["cpu"]
    assert os.path.expanduser("~") not in text
    assert socket.gethostname() not in text
    assert platform.node() not in text


def test_versions_name_lauter_and_what_results_depend_on():
    found = versions()
    assert list(found)[:2] == ["lauter", "python"]
    assert {"torch", "numpy", "scikit-learn"} <= set(found)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": "other"}, "one of noisy, distill, audit, speed"),
        ({"method": ""}, "needs a method"),
        ({"value": float("nan")}, "balanced_accuracy of ce on digits, seed 0, is nan"),
    ],
)
def test_bad_records_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        make_record(**changes)


def test_a_file_is_read_as_it_was_written(tmp_path):
    file = ResultFile.start("lauter bench noisy").append([make_record(0.5), make_record(0.6, seed=1)])
    file.write(tmp_path / "noisy.json")
    assert ResultFile.read(tmp_path / "noisy.json") == file
    content = json.loads((tmp_path / "noisy.json").read_text())
    assert list(content) == ["machine", "versions", "command", "records"]
    assert content["records"][1] == {
        "suite": "noisy",
        "data": "digits",
        "method": "ce",
        "seed": 1,
        "metric": "balanced_accuracy",
        "value": 0.6,
    }
    assert [path.name for path in tmp_path.iterdir()] == ["noisy.json"]


def test_a_record_with_a_known_key_replaces_the_earlier_one_in_its_place():
    file = ResultFile.start("x").append([make_record(0.5), make_record(0.6, seed=1)])
    again = file.append([make_record(0.7)])
    assert [record.value for record in again.records] == [0.7, 0.6]
    assert [record.value for record in file.records] == [0.5, 0.6]


def test_done_asks_for_every_key():
    file = ResultFile.start("x").append([make_record(0.5)])
    key = Key("noisy", "digits", "ce", 0, "balanced_accuracy")
    assert file.done([key])
    assert not file.done([key, key._replace(seed=1)])
    assert not file.done([key._replace(metric="accuracy")])


def test_a_stopped_benchmark_goes_on(tmp_path):
    path = tmp_path / "noisy.json"
    assert ResultFile.resume(path, "first").records == ()
    ResultFile.start("first").append([make_record()]).write(path)
    again = ResultFile.resume(path, "second")
    assert again.records == (make_record(),)
    assert again.command == "second"


@pytest.mark.parametrize(("part", "name"), [("machine", "cores"), ("versions", "torch")])
def test_records_of_two_machines_are_not_mixed(tmp_path, part, name):
    path = tmp_path / "noisy.json"
    ResultFile.start("x").append([make_record()]).write(path)
    content = json.loads(path.read_text())
    content[part][name] = "7.7"
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match=rf"another {part} \({name} 7\.7 ->"):
        ResultFile.resume(path, "x")


def test_what_is_no_result_file_is_named(tmp_path):
    with pytest.raises(RunError, match="there is no result file"):
        ResultFile.read(tmp_path / "none.json")
    for text in ("{", "[]", '{"records": [{"suite": "noisy"}]}', '{"records": []}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(RunError, match="is no result file of lauter bench"):
            ResultFile.read(tmp_path / "bad.json")


def test_a_text_is_kept_and_none_leaves_no_trace(tmp_path):
    records = [dataclasses.replace(make_record(), metric="sha256", text="ab12"), make_record()]
    ResultFile.start("x").append(records).write(tmp_path / "noisy.json")
    assert ResultFile.read(tmp_path / "noisy.json").records == tuple(records)
    content = json.loads((tmp_path / "noisy.json").read_text())["records"]
    assert content[0]["text"] == "ab12"
    assert "text" not in content[1]
    write_part(tmp_path / "parts" / "one.json", records)
    assert read_parts(tmp_path / "parts") == records

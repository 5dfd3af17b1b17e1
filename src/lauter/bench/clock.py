"""Wall-clock and peak memory of ``lauter fit``, measured from outside, as its user meets them."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

from lauter.bench.records import Record
from lauter.errors import RunError
from lauter.files import read_json

SUITE = "speed"
DATA = "cifar10n-worst"
LAUNCHER = """
import os, sys
child = os.spawnv(os.P_NOWAIT, sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(child, 0)
open(sys.argv[1], "w").write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""Runs a command and writes its peak memory. The peak counts the memory of the process that a command was
started from, so that process must be a small one."""


def clock_fit(preset: str, cifar10: Path, work: Path, seed: int = 0) -> list[Record]:
    """Run ``lauter fit`` on 10,000 images of CIFAR-10N 'worst' in a process of its own, with its defaults.

    Nothing else should run on the machine meanwhile.

    Args:
        preset: lengths of all stages.
        cifar10: CIFAR-10 with CIFAR-10N's labels as columns.
        work: an earlier run of the same preset in there is removed first.
        seed: of the run.

    Returns:
        Seconds from the command's start to its end (opening, baseline, export and report included), peak
        memory in MiB, and the seconds of every stage; method ``fit PRESET``.

    Raises:
        RunError: the command failed; its last line is quoted.
    """
    out = work / f"fit-{preset}"
    shutil.rmtree(out, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "lauter", "fit", str(cifar10), "--split", "train", "--size", "10000"]
    command += ["--label-column", "label_worst", "--truth-column", "label", "--seed", str(seed)]
    command += ["--teacher", "resnet20", "--student", "resnet8", "--preset", preset, "--out", str(out)]
    log, peak = work / f"fit-{preset}.log", work / f"fit-{preset}.peak"
    began = time.monotonic()
    with log.open("w", encoding="utf-8") as stream:
        launch = [sys.executable, "-c", LAUNCHER, str(peak), *command]
        code = subprocess.run(launch, stdout=stream, stderr=subprocess.STDOUT, check=False).returncode
    seconds = time.monotonic() - began
    if code:
        last = log.read_text(encoding="utf-8").strip().splitlines()[-1:] or ["it said nothing"]
        raise RunError(f"lauter fit ended with exit code {code}: {last[0]}")
    kibibytes = int(peak.read_text()) / (1024 if sys.platform == "darwin" else 1)
    values = {"seconds": seconds, "peak_mib": kibibytes / 1024}
    for stage, cost in read_json(out / "metrics.json")["cost"]["stages"].items():
        values[f"seconds_{stage}"] = cost["seconds"]
    return [Record(SUITE, DATA, f"fit {preset}", seed, metric, value) for metric, value in values.items()]

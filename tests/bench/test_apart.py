"""A process of its own: what it gives, what it raises, and that its end is noticed."""

import os

import pytest

from lauter.bench.apart import run_apart
from lauter.errors import RunError


def test_a_function_runs_in_another_process_and_its_answer_comes_back() -> None:
    assert run_apart(os.getpid) != os.getpid()


def test_what_it_raises_is_raised_here() -> None:
    with pytest.raises(FileNotFoundError, match="no-such-file"):
        run_apart(os.stat, "no-such-file")


def test_a_killed_process_is_an_error_that_says_so() -> None:
    with pytest.raises(RunError, match="that measured _exit was killed"):
        run_apart(os._exit, 9)

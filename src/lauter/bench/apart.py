"""Measuring in a process of its own, so that its memory is its own."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from lauter.errors import RunError

_T = TypeVar("_T")


def run_apart(function: Callable[..., _T], *arguments: object) -> _T:
    """Run a function in a fresh process and wait for it.

    Args:
        function: of a module, so that the process finds it by its name.
        arguments: as plain data, which travels there.

    Returns:
        What it gives; what it raises is raised here.

    Raises:
        RunError: the process was killed, as it is where memory runs out.
    """
    # spawn, not fork: a copy of this process would begin with all of its memory and its threads' locks.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise RunError(
                f"the process that measured {getattr(function, '__name__', 'this')} was killed; "
                "if memory ran out, measure smaller sizes or on a larger machine"
            ) from error

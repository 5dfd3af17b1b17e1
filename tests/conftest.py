"""Fixtures of all rooms."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """Find a real data set by name in LAUTER_DATA, else ../shared/data; skip where it is absent."""

    def find(name: str) -> Path:
        beside = Path(__file__).parents[2] / "shared" / "data"
        folder = Path(os.environ.get("LAUTER_DATA", beside)) / name
        if not folder.is_dir():
            pytest.skip(f"no data set {name} in {folder.parent}; set LAUTER_DATA to the folder that holds it")
        return folder

    return find

"""Images without labels: files and folders of any depth."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lauter.data.bare import open_images
from lauter.errors import DataError

Picture = Callable[..., Image.Image]


def test_one_file(tmp_path: Path, picture: Picture) -> None:
    path = tmp_path / "one.png"
    picture(3).save(path)
    images, ids, faults = open_images(path, 16)
    assert ids.tolist() == ["one.png"]
    assert faults == ()
    np.testing.assert_array_equal(images.read(0), np.asarray(picture(3)).transpose(2, 0, 1))


def test_a_folder_at_any_depth_without_what_is_hidden(tmp_path: Path, picture: Picture) -> None:
    names = ["b.png", "a/z.PNG", "a/deep/er/y.bmp", ".hidden.png", ".thumbnails/b.png", "a/.git/x.png"]
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    images, ids, faults = open_images(tmp_path, 16)
    assert ids.tolist() == ["a/deep/er/y.bmp", "a/z.PNG", "b.png"]
    assert faults == ()
    for place, number in enumerate((2, 1, 0)):
        np.testing.assert_array_equal(images.read(place), np.asarray(picture(number)).transpose(2, 0, 1))


def test_images_get_the_size_asked_for(tmp_path: Path, picture: Picture) -> None:
    picture(0, 40, 20).save(tmp_path / "wide.png")
    picture(1, 9, 9).save(tmp_path / "small.png")
    images, _, _ = open_images(tmp_path, 12)
    assert images.uniform is not None
    assert images.uniform.shape == (2, 3, 12, 12)


def test_broken_files_are_left_out_and_named(tmp_path: Path, picture: Picture) -> None:
    for name in ("a.png", "c.png"):
        picture(1).save(tmp_path / name)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    images, ids, faults = open_images(str(tmp_path), 16)
    assert ids.tolist() == ["a.png", "c.png"]
    assert len(images) == 2
    assert [(fault.id, fault.dropped) for fault in faults] == [("b.png", True)]


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent: no such file or folder"):
        open_images(tmp_path / "absent", 16)
    with pytest.raises(DataError, match=r"no images in it; their names end in .*\.png"):
        open_images(tmp_path, 16)
    (tmp_path / "x.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of its 1 images can be read"):
        open_images(tmp_path, 16)
    with pytest.raises(DataError, match="none of its 1 images can be read"):
        open_images(tmp_path / "x.png", 16)

"""Write the report: fill the template with the sections that have something to show."""

import base64
import hashlib
import os
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import lauter
from lauter.auditing.report.comparison import build_comparison
from lauter.auditing.report.content import ReportContent
from lauter.auditing.report.curves import build_curves, build_mimicry
from lauter.auditing.report.formats import format_count
from lauter.auditing.report.sections import (
    build_config,
    build_cost,
    build_faults,
    build_gallery,
    build_noise,
    build_scores,
    build_summary,
    build_verdicts,
)
from lauter.files import write_text


def write_report(path: str | os.PathLike[str], content: ReportContent, max_pictures: int = 200) -> None:
    """Write one self-contained HTML file, whole or not at all.

    It opens from disk, needs no network, follows the reader's light or dark setting, and works without
    scripts but for the filters of the gallery. Names and ids from the data are escaped, and the page forbids
    every script but its own by hash, so that a hostile name stays a name.

    Args:
        path: where the page shall stand.
        content: what it shows; empty parts are left out.
        max_pictures: upper bound on embedded thumbnails (about 3 KB each); 0 for none.

    Raises:
        DataError: a picture is not uint8 [3, H, W].
        OSError: the file cannot be written.
    """
    write_text(path, render_report(content, max_pictures))


def render_report(content: ReportContent, max_pictures: int = 200) -> str:
    """The page as text; see :func:`write_report`."""
    script = read_asset("report.js")
    num_images = len(content.ids) if content.labels is None else len(content.labels)
    view: dict[str, Any] = {
        "content": content,
        "version": lauter.__version__,
        "style": Markup(read_asset("report.css")),
        "script": Markup(script),
        "script_hash": hash_script(script),
        "num_images": format_count(num_images),
        "num_classes": format_count(len(content.class_names)),
        "verdicts": build_verdicts(content),
        "summary": build_summary(content),
        "scores": build_scores(content),
        "noise": build_noise(content),
        "gallery": build_gallery(content, max_pictures),
        "curves": build_curves(content.history),
        "mimicry": build_mimicry(content.history),
        "comparison": build_comparison(content),
        "faults": build_faults(content.faults),
        "cost": build_cost(content),
        "config": build_config(content.config),
    }
    return make_environment().get_template("report.html").render(view)


@cache
def make_environment() -> Environment:
    """Templates in which everything is escaped and every name has to be known."""
    # Undefined names in the template are errors: a section must not vanish because of a typo.
    return Environment(
        loader=PackageLoader("lauter.auditing.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def read_asset(name: str) -> str:
    """A file beside the templates."""
    return files("lauter.auditing.report").joinpath("templates", name).read_text(encoding="utf-8")


def hash_script(script: str) -> str:
    """What the page's policy calls its script: only a script of this hash is run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode('ascii')}"

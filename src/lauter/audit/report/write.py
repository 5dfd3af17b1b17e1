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
from lauter.audit.report.comparison import build_comparison
from lauter.audit.report.content import ReportContent
from lauter.audit.report.curves import build_curves, build_mimicry
from lauter.audit.report.formats import format_count
from lauter.audit.report.sections import (
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
    environment = _make_environment()
    script = _read_asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    num_images = len(content.ids) if content.labels is None else len(content.labels)
    view: dict[str, Any] = {
        "content": content,
        "version": lauter.__version__,
        "style": Markup(_read_asset("report.css")),
        "script": Markup(script),
        "script_hash": f"sha256-{digest}",
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
        "faults": build_faults(content),
        "cost": build_cost(content),
        "config": build_config(content),
    }
    return environment.get_template("report.html").render(view)


@cache
def _make_environment() -> Environment:
    # Undefined names in the template are errors: a section must not vanish because of a typo.
    return Environment(
        loader=PackageLoader("lauter.audit.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _read_asset(name: str) -> str:
    return files("lauter.audit.report").joinpath("templates", name).read_text(encoding="utf-8")

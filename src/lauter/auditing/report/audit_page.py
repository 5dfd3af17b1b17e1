"""Write the page of an audit: what is wrong, how sure that is, and the pictures to decide on."""

import os
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

import lauter
from lauter.auditing.report.audit_content import AuditContent
from lauter.auditing.report.audit_findings import build_duplicates, build_leaks
from lauter.auditing.report.audit_sections import (
    build_budget,
    build_counts,
    build_cuts,
    build_noise,
    build_rates,
    build_seconds,
    build_truth,
)
from lauter.auditing.report.audit_selection import select_groups, select_pictures
from lauter.auditing.report.formats import format_count
from lauter.auditing.report.page_data import build_data, write_data
from lauter.auditing.report.sections import build_config, build_faults
from lauter.auditing.report.thumbnails import Thumbnails, make_thumbnails
from lauter.auditing.report.write import hash_script, make_environment, read_asset
from lauter.files import write_text

SCRIPTS = ("page", "decisions", "gallery", "review", "map", "start")
"""Parts of the page's script, in the order in which they need each other."""


def write_audit_report(path: str | os.PathLike[str], content: AuditContent, max_pictures: int = 2000) -> None:
    """Write one self-contained HTML file, whole or not at all.

    It opens from disk and needs no network. In it a person filters, searches and sorts the doubtful images,
    decides on them by keys, mouse or touch, and downloads decisions.csv with the columns id, given, decision
    (accept, keep, relabel, drop or skip) and label, as RFC 4180 has it. Ids and names stand in that file as
    they are: one that begins with ``=`` is a formula to a spreadsheet, so open files of doubtful origin as
    text. Decisions are kept in the browser, under the audit's fingerprint, until they are cleared there.

    Names and ids from the data are escaped, and the page forbids every script but its own by hash, so that a
    hostile name stays a name.

    Args:
        path: where the page shall stand.
        content: what it shows; empty parts are left out.
        max_pictures: upper bound on embedded pictures, about 11 KB each at most; 0 for none.

    Raises:
        DataError: a picture is not uint8 [3, H, W].
        OSError: the file cannot be written.
    """
    write_text(path, render_audit_report(content, max_pictures))


def render_audit_report(content: AuditContent, max_pictures: int = 2000) -> str:
    """The page as text; see :func:`write_audit_report`."""
    groups = select_groups(content.table)
    rows, thumbnails = _choose_pictures(content, groups, max_pictures)
    tile_of = {row: tile for tile, row in enumerate(rows)}
    telling = content.judgement.advice.telling
    script = join_scripts()
    view: dict[str, Any] = {
        "content": content,
        "version": lauter.__version__,
        "style": Markup(read_asset("report.css") + read_asset("audit.css")),
        "script": Markup(script),
        "script_hash": hash_script(script),
        "num_images": format_count(len(content.table)),
        "num_classes": format_count(len(content.class_names)),
        "num_pictures": format_count(len(rows)),
        "num_shown": len(rows),
        "data": write_data(build_data(content, rows, thumbnails)) if rows else None,
        "pictures": write_data(thumbnails.payloads),
        "has_map": bool(rows) and "map_x" in content.table.columns,
        "counts": build_counts(content),
        "rates": build_rates(content.judgement),
        "advice": content.judgement.advice,
        "budget": build_budget(content.judgement) if telling else None,
        "cuts": build_cuts(content.judgement) if telling else None,
        "noise": build_noise(content),
        "truth": build_truth(content.truth),
        "faults": build_faults(content.faults),
        "duplicates": build_duplicates(content, groups, tile_of, thumbnails),
        "leaks": build_leaks(content, tile_of, thumbnails),
        "seconds": build_seconds(content.seconds),
        "config": build_config(content.config),
    }
    page = make_environment().get_template("audit.html").render(view)
    # A file name that is no text in UTF-8 reaches us with lone surrogates, which no page can hold.
    return page.encode("utf-8", "replace").decode("utf-8")


def join_scripts() -> str:
    """The page's script: its parts, in a scope of their own."""
    parts = "\n".join(read_asset(f"audit/{name}.js") for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}}})();\n'


def _choose_pictures(
    content: AuditContent, groups: Sequence[Any], max_pictures: int
) -> tuple[list[int], Thumbnails]:
    if content.picture is None or max_pictures < 1:
        return [], Thumbnails([], [], [])
    rows = select_pictures(content.table, content.judgement.review.order, list(groups), max_pictures)
    return rows, make_thumbnails(content.picture, rows)

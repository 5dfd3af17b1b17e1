"""Formulas as MathML: browsers draw it themselves, so that the pages load no script from elsewhere."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Replace each TeX formula that arithmatex marked on a page."""
    return _FORMULA.sub(_convert, content)


def _convert(match: re.Match[str]) -> str:
    tag, tex = match.groups()
    return convert(html.unescape(tex).strip(), display="inline" if tag == "span" else "block")

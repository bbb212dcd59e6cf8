"""The page itself: one file that needs no other, with its figures inside."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

__all__ = ["report_page"]

SCRIPTS = ("base.js", "view.js", "timeline.js", "memory.js", "roofline.js", "table.js", "main.js")
"""In the order in which they run."""


def report_page(figures: Mapping[str, Any]) -> str:
    """Return the page for some figures.

    Names of models and layers are anybody's: they are data of a JSON element, which the scripts
    show as text.

    Parameters
    ----------
    figures : mapping
        From `celosia.sw.report.html.figures.report_figures`.

    Returns
    -------
    str
        HTML, without a reference to another file.
    """
    text = json.dumps(figures, separators=(",", ":"), allow_nan=False)
    # Within a script element only these could end it, or begin a comment.
    text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    parts = {
        "TITLE": html.escape(f"{figures['model']} on {figures['config']} - Celosia"),
        "STYLE": _file("page.css"),
        "SCRIPT": "\n".join(_file(name) for name in SCRIPTS),
        "FIGURES": text,
    }
    page = _file("page.html")
    # In one pass: what is put in may look like a mark itself.
    pieces = page.split("@@")
    return "".join(piece if n % 2 == 0 else parts[piece] for n, piece in enumerate(pieces))


@cache
def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")

"""Reads the page of `celosia report`."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

__all__ = ["embedded", "texts"]


class _Texts(HTMLParser):
    def __init__(self, document: str) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self._at = ""
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._at = dict(attrs).get("id") or ""

    def handle_data(self, data: str) -> None:
        self.found[self._at] = self.found.get(self._at, "") + data


def texts(document: str) -> dict[str, str]:
    """Return the text of the elements that have an id."""
    return _Texts(document).found


def embedded(page: str) -> dict[str, Any]:
    """Return the figures in a page."""
    content: dict[str, Any] = json.loads(texts(page)["figures"])
    return content

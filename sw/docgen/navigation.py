"""The order of the pages, in README.md and on the site: the navigation in ``mkdocs.yml``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from celosia.errors import CelosiaError

__all__ = ["CONFIG", "HOME", "Page", "navigation", "page_table"]

CONFIG = "mkdocs.yml"
HOME = "README.md"
_NAVIGATION = re.compile(r"^nav:\n((?:  .*\n)+)", re.M)
_SECTION = re.compile(r"  - ([^:]+):")
_PAGE = re.compile(r"(?:      |  )- ([^:]+): (\S+\.md)")


@dataclass(frozen=True)
class Page:
    """A page of the documentation.

    Attributes
    ----------
    section : str
        Empty for the first page.
    title : str
    file : str
        From the source tree's top.
    """

    section: str
    title: str
    file: str


def navigation(root: Path) -> list[Page]:
    """Return the pages in a reader's order, those that are not there too.

    Raises
    ------
    CelosiaError
        If a line of the navigation is neither a section nor a page.
    """
    path = root / CONFIG
    found = _NAVIGATION.search(path.read_text(encoding="utf-8"))
    if found is None:
        raise CelosiaError(f"{path}", "it has no navigation (nav:)", "add one")
    pages: list[Page] = []
    section = ""
    for line in found[1].splitlines():
        if (page := _PAGE.fullmatch(line)) is not None:
            pages.append(Page(section, page[1], page[2]))
        elif (head := _SECTION.fullmatch(line)) is not None:
            section = head[1]
        else:
            raise CelosiaError(f"{path}", f"{line.strip()!r} is no line of a navigation", "mend it")
    return pages


def page_table(root: Path) -> str:
    """Return README.md's list of pages: a row a section."""
    rows: dict[str, list[str]] = {}
    for page in navigation(root):
        if page.file != HOME and (root / page.file).is_file():
            rows.setdefault(page.section, []).append(f"[{page.title}]({page.file})")
    lines = [f"| {section} | {', '.join(links)} |" for section, links in rows.items()]
    return "\n".join(["| for | pages |", "|---|---|", *lines])

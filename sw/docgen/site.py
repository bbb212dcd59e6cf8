"""The documentation as a site: ``make site`` runs this, and then MkDocs.

MkDocs takes pages from one folder only, while links of README.md and ``docs/`` lead through the
source tree. So the pages and what they link are copied, each at its place in the tree, and the
configuration gets the navigation without pages that are not there.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

from celosia.sw.docgen.navigation import CONFIG, navigation

__all__ = ["main", "stage"]

ROOT = Path(__file__).resolve().parents[2]
"""The source tree."""
_LINK = re.compile(r"""(?:\]\(|\bsrc="|\bsrcset=")([^)"\s#]+)""")
"""Of Markdown, and pictures of HTML."""


def stage(root: Path, target: Path) -> Path:
    """Copy the pages of a source tree, and what they link.

    Parameters
    ----------
    root : Path
        The source tree.
    target : Path
        A folder: its part ``pages`` is made anew.

    Returns
    -------
    Path
        MkDocs' configuration, in the folder.
    """
    pages = target / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    there = [page.file for page in navigation(root) if (root / page.file).is_file()]
    for name in sorted({*there, *(link for page in there for link in _links(root, page))}):
        copy = pages / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, copy)
    text = (root / CONFIG).read_text(encoding="utf-8")
    for page in navigation(root):
        if page.file not in there:
            text = re.sub(rf"^ *- [^:]+: {re.escape(page.file)}\n", "", text, flags=re.M)
    config = target / CONFIG
    config.write_text(text, encoding="utf-8")
    return config


def _links(root: Path, page: str) -> list[str]:
    """Return the files of the source tree that a page links, but pages."""
    text = (root / page).read_text(encoding="utf-8")
    found = [((root / page).parent / link).resolve() for link in _LINK.findall(text)]
    return [
        path.relative_to(root).as_posix()
        for path in found
        if path.is_file() and path.is_relative_to(root) and path.suffix != ".md"
    ]


def main(arguments: list[str] | None = None) -> None:
    """Copy the pages for MkDocs, and print the configuration's path."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build")
    folder: Path = parser.parse_args(arguments).folder
    print(stage(ROOT, folder))


if __name__ == "__main__":
    main()

"""How to install what is missing, as it is right for this installation."""

from __future__ import annotations

from pathlib import Path

__all__ = ["install_advice"]

ROOT = Path(__file__).resolve().parents[2]
"""The checkout, when this file is in one."""


def install_advice(extras: str) -> str:
    """Return the remedy for a package that is missing.

    Parameters
    ----------
    extras : str
        Which extras bring it, for example ``sim`` or ``sim,boards``.

    Returns
    -------
    str
        With the package's name, or, where Celosia runs from a checkout (as an editable install
        does), with the checkout: the index need not have what is there.
    """
    if not _is_checkout(ROOT):
        target = "celosia"
    elif _here() == ROOT:
        target = "."
    else:
        target = str(ROOT)
    return f'run: pip install "{target}[{extras}]"'


def _is_checkout(folder: Path) -> bool:
    try:
        return 'name = "celosia"' in (folder / "pyproject.toml").read_text(encoding="utf-8")
    except (OSError, UnicodeError):
        return False


def _here() -> Path | None:
    try:
        return Path.cwd()
    except OSError:  # deleted
        return None

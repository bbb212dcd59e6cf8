"""README.md and docs/: links lead somewhere, figures are the commands', words are defined."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from celosia.errors import CelosiaError
from celosia.hw.contract.config import PRESETS
from celosia.sw.compiler.build import compile_model
from celosia.sw.docgen.figures import Figures
from celosia.sw.docgen.marks import FigureError, NotHereError, marks_of, render
from celosia.sw.docgen.navigation import navigation
from celosia.sw.docgen.pages import DOCUMENTS, ROOT, marked_pages
from celosia.sw.docgen.site import stage
from celosia.sw.docgen.sources import BENCHMARK, DIGITS
from celosia.sw.report.bench.bench import Measurement
from celosia.sw.report.records import read_entries

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKING = [*PAGES, *sorted((ROOT / "examples").glob("*/README.md"))]
FIGURES = Figures(ROOT)
PREDICTED = [
    *((DIGITS, config) for config in PRESETS),
    *((model, config) for config in ("base", "large") for model in BENCHMARK),
    *((model, config) for config in ("nano", "tiny") for model in ("kws_int8", "sww_int8")),
]
"""Runs of the record whose prediction is made again; the others take long to compile."""

HOUSE_WORDS = (
    "line bank lane beat group wave window segment pass tile half stripe chunk slab home work step"
    " place once"
)
PLURALS = {"halves": "half", "passes": "pass"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def anchors_of(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", text_of(path), flags=re.M | re.S)
    found: set[str] = set()
    for title in re.findall(r"^#+ +(.+?)\s*$", text, re.M):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).replace("`", "").lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = sum(1 for other in found if re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", other))
        found.add(f"{anchor}-{number}" if number else anchor)
    return found


@pytest.mark.parametrize("page", LINKING, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    prose = re.sub(r"^```.*?^```$", "", text_of(page), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            dead.append(link)
    assert not dead


LONGEST = 200
"""Lines of a page that somebody writes."""


@pytest.mark.parametrize("page", PAGES[1:], ids=name_of)
def test_pages_are_short(page: Path) -> None:
    if page.name not in DOCUMENTS:
        assert len(text_of(page).splitlines()) <= LONGEST


def test_every_page_is_in_the_navigation() -> None:
    listed = [page.file for page in navigation(ROOT)]
    assert len(listed) == len(set(listed))
    assert {name_of(page) for page in PAGES} <= set(listed)


def test_the_site_has_the_pages_and_what_they_link(tmp_path: Path) -> None:
    config = stage(ROOT, tmp_path).read_text(encoding="utf-8")
    staged = {
        path.relative_to(tmp_path / "pages").as_posix()
        for path in (tmp_path / "pages").rglob("*")
        if path.is_file()
    }
    assert staged >= {name_of(page) for page in PAGES} | {
        "LICENSE",
        "docs/compiler.svg",
        "docs/report_dark.png",
    }
    for page in navigation(ROOT):
        assert (page.file in config) == (page.file in staged) == (ROOT / page.file).is_file()


def test_every_page_is_linked_from_the_readme() -> None:
    linked = re.findall(r"\]\((docs/[\w.]+)\)", text_of(ROOT / "README.md"))
    assert {name_of(page) for page in PAGES[1:]} <= set(linked)


@pytest.mark.parametrize("page", marked_pages(), ids=name_of)
def test_figures_are_those_of_the_commands(page: Path) -> None:
    problems: list[str] = []
    assert render(text_of(page), FIGURES, problems) == text_of(page), "run: make docs"
    if problems:
        pytest.skip("; ".join(problems))


@pytest.mark.parametrize(("model", "config"), PREDICTED)
def test_recorded_predictions_are_the_compilers(model: str, config: str) -> None:
    run = FIGURES.sources.cycles.find(model, config)
    assert isinstance(run, Measurement)
    # As `celosia bench` compiles it.
    program = compile_model(FIGURES.sources.model(model), PRESETS[config], resident=False)
    predicted = [layer.predicted_cycles for layer in program.layers]
    advice = f"run: celosia bench --config {config} --record docs/figures/cycles.json"
    assert run.predicted_cycles == sum(predicted), advice
    if run.layers:
        layers = [entry.layer for entry in run.layers if entry.layer is not None]
        assert [layer.predicted_cycles for layer in layers] == predicted, advice


def test_recorded_sessions_have_the_recorded_cycles() -> None:
    sessions = read_entries(FIGURES.sources.records / "sessions.json")
    for command, model in (
        ("celosia demo", DIGITS),
        ("celosia run examples/mlperf_tiny/kws", "kws_int8"),
    ):
        (lines,) = (
            "\n".join(lines)
            for name, lines in sessions.items()
            if name.startswith(command) and "--device" not in name
        )
        run = FIGURES.sources.cycles.find(model, "base")
        assert isinstance(run, Measurement)
        cycles = f"cycles: {run.cycles:,} ({run.predicted_cycles:,} predicted"
        assert cycles in lines, "run: python -m celosia.sw.docgen.sessions"


def test_every_record_is_cited() -> None:
    cited = "\n".join(text_of(page) for page in PAGES)
    reports = read_entries(FIGURES.sources.records / "boards.json")
    assert all(f"board {name} -->" in cited for name in reports)


def words() -> dict[str, str]:
    """Return the words that are defined, each with its paragraph."""
    text = "\n".join(text_of(ROOT / f"docs/{page}.md") for page in ("words", "words_p_to_z"))
    own = text[: text.index("## The field's words")]
    found = re.findall(r"^\*\*(.+?)\*\*(.+?)(?=\n\n)", own, re.M | re.S)
    assert len(dict(found)) == len(found), "a word is defined twice"
    return dict(found)


def test_words_are_sorted_and_complete() -> None:
    names = list(words())
    assert names == sorted(names)
    assert set(HOUSE_WORDS.split()) <= set(names)
    italic = {
        word for text in words().values() for word in re.findall(r"(?<!\*)\*(\w+)\*(?!\*)", text)
    }
    others = {PLURALS.get(word, word.removesuffix("s")) for word in italic - set(names)}
    assert others <= set(names)


@pytest.mark.parametrize("word", words())
def test_a_word_lives_in_the_files_that_its_paragraph_names(word: str) -> None:
    names = re.findall(r"`((?:hw|sw|sim|boards)/[\w/.]*)`", words()[word])
    assert names
    for name in names:
        path = ROOT / name
        assert path.exists(), name
        files = [path] if path.is_file() else sorted(path.rglob("*.py"))
        text = "\n".join(text_of(file) for file in files).lower()
        assert word in text, f"{name} does not have the word {word!r}"


class Counting:
    """Writes a number, another one each time."""

    def __init__(self) -> None:
        self.calls = 0

    def block(self, name: str, old: str) -> str:
        if name == "gone":
            raise NotHereError("gone", "not here", "")
        self.calls += 1
        return f"{old} {name} {self.calls}"

    def figure(self, name: str) -> str:
        self.calls += 1
        return f"{name}{self.calls}"


def test_marks_are_written_and_nothing_else() -> None:
    text = (
        "a <!--= x y -->old<!--/--> b\n\n<!-- make docs: one -->\n```text\nc\n```\n"
        "d\n<!-- make docs: gone -->\n```\ne\n```\n<!-- make docs: two -->\n| f |\n|---|\n\ng\n"
    )
    problems: list[str] = []
    assert marks_of(text) == ["one", "gone", "two", "x y"]
    assert render(text, Counting(), problems) == (
        "a <!--= x y -->x y3<!--/--> b\n\n<!-- make docs: one -->\n```text\nc one 1\n```\n"
        "d\n<!-- make docs: gone -->\n```\ne\n```\n"
        "<!-- make docs: two -->\n| f |\n|---| two 2\n\ng\n"
    )
    assert len(problems) == 1
    for broken in ("<!--= x -->1\n", "<!-- make docs: x -->\n\n```\n```\n", "1<!--/-->"):
        with pytest.raises(FigureError, match="has no end"):
            render(broken, Counting())
    with pytest.raises(FigureError, match="begins a line"):
        render("a\n<!--= x y -->old<!--/--> b\n", Counting())


@pytest.mark.parametrize(
    "mark",
    [
        *("cycles nothing", "cycles layers kws_int8", "walk nothing", "sdram nothing", "nothing"),
    ],
)
def test_unknown_blocks_are_errors(mark: str) -> None:
    with pytest.raises(FigureError, match="there is none called"):
        FIGURES.block(mark, "")


def test_unknown_figures_are_errors() -> None:
    for mark in ("cycles kws_int8", "nothing", "board ulx3s nothing"):
        with pytest.raises(FigureError, match="there is none called"):
            FIGURES.figure(mark)
    with pytest.raises(CelosiaError, match="does not have them"):
        FIGURES.figure("cycles nothing base")

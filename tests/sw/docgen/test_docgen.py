"""The generated documents: committed as generated, complete, and usable from C."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from celosia.hw.contract.isa import COMMANDS, fields_of
from celosia.hw.contract.regs import REGISTERS, ErrorCause
from celosia.hw.contract.uart import Kind, Status
from celosia.sw.docgen.pages import DOCUMENTS, c_header, isa_page, main, registers_page
from celosia.sw.docgen.uart import with_protocol_tables

from tests.kit.places import ROOT

DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_committed_document_is_the_generated_one(name: str) -> None:
    committed = (DOCS / name).read_text(encoding="utf-8")
    assert committed == DOCUMENTS[name](), "run: python -m celosia.sw.docgen.pages"


def test_the_tables_of_the_link_are_the_generated_ones() -> None:
    page = (DOCS / "uart.md").read_text(encoding="utf-8")
    assert page == with_protocol_tables(page), "run: python -m celosia.sw.docgen.pages"
    assert all(f"| {kind.name} |" in page for kind in Kind)
    assert all(f"| {status.name} |" in page for status in Status)
    for table in re.findall(r"(?:^\|.*\n)+", page, re.M):
        assert len({row.count("|") for row in table.splitlines()}) == 1


def test_main_writes_every_document(tmp_path: Path) -> None:
    main([str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == set(DOCUMENTS)
    assert (tmp_path / "isa.md").read_text(encoding="utf-8") == isa_page()


def test_the_isa_page_has_every_field_at_its_place() -> None:
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", isa_page(), re.M | re.S))
    for kind in COMMANDS.values():
        rows = re.findall(r"^\| (?:(\d+):)?(\d+) \| `(\w+)` \|", sections[kind.__name__], re.M)
        found = {name: (int(low), int(high or low)) for high, low, name in rows}
        assert found == {
            spec.name: (spec.offset_bits, spec.offset_bits + spec.width_bits - 1)
            for spec in fields_of(kind)
        }


def test_pages_are_well_formed() -> None:
    for page in (isa_page(), registers_page()):
        assert page.count("```") % 2 == 0
        assert ":class:" not in page
        for table in re.findall(r"(?:^\|.*\n)+", page, re.M):
            assert len({row.replace("\\|", "").count("|") for row in table.splitlines()}) == 1
        anchors = {title.lower() for title in re.findall(r"^#+ (\w+)$", page, re.M)}
        assert set(re.findall(r"\]\(#([^)]*)\)", page)) <= anchors


def test_the_register_page_has_every_register() -> None:
    rows = dict(re.findall(r"^\| 0x(\w\w) \| `(\w+)` \|", registers_page(), re.M))
    assert {int(address, 16): name for address, name in rows.items()} == {
        register.address: register.name for register in REGISTERS
    }


def test_the_header_defines_every_register_and_field_once() -> None:
    pairs = re.findall(r"^#define CELOSIA_(\w+) (\w+)$", c_header(), re.M)
    values = {name: int(value.rstrip("u"), 0) for name, value in pairs}
    assert len(values) == len(pairs)
    for register in REGISTERS:
        name = register.name.upper()
        assert values[f"{name}_OFFSET"] == register.address
        for field in register.fields:
            if field.width_bits < 32:
                full = f"{name}_{field.name.upper()}"
                assert values[f"{full}_SHIFT"] == field.offset_bits
                mask = values[f"{full}_MASK"] >> field.offset_bits
                assert mask == (1 << field.width_bits) - 1
    for cause in ErrorCause:
        assert values[f"CAUSE_{cause.name}"] == cause
    assert values["IDENTITY_VALUE"].to_bytes(4, "little") == b"CELO"

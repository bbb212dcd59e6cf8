"""The C header of the register map."""

from __future__ import annotations

from celosia.hw.contract.regs import IDENTITY, REGISTERS, VERSION, ErrorCause

__all__ = ["c_header"]

_PREFIX = "CELOSIA"


def c_header() -> str:
    """Return ``docs/celosia_regs.h``: offsets, masks and shifts as C99 preprocessor constants."""
    lines = [
        "/* SPDX-License-Identifier: BSD-2-Clause */",
        "/* Generated from hw/contract/regs.py by sw/docgen/pages.py; do not edit. */",
        f"#ifndef {_PREFIX}_REGS_H",
        f"#define {_PREFIX}_REGS_H",
        "",
        _define("IDENTITY_VALUE", f"0x{IDENTITY:08x}u"),
        _define("VERSION_VALUE", f"0x{VERSION:08x}u"),
        "",
    ]
    for register in REGISTERS:
        name = register.name.upper()
        lines += [f"/* {register.doc} */", _define(f"{name}_OFFSET", f"0x{register.address:02x}u")]
        if register.fields[0].width_bits < 32:
            for field in register.fields:
                full = f"{name}_{field.name.upper()}"
                mask = ((1 << field.width_bits) - 1) << field.offset_bits
                lines.append(f"/*   {field.access.name}: {field.doc} */")
                lines.append(_define(f"{full}_SHIFT", str(field.offset_bits)))
                lines.append(_define(f"{full}_MASK", f"0x{mask:08x}u"))
        lines.append("")
    lines.append("/* Values of ERROR_CAUSE_CAUSE. */")
    lines += [_define(f"CAUSE_{cause.name}", f"{cause.value}u") for cause in ErrorCause]
    return "\n".join([*lines, "", f"#endif /* {_PREFIX}_REGS_H */", ""])


def _define(name: str, value: str) -> str:
    return f"#define {_PREFIX}_{name} {value}"

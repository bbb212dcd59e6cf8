"""Readers of waveform files, written from the formats, to compare what is written with."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Changes", "read_fst", "read_vcd"]

Changes = dict[str, list[tuple[int, int]]]
"""By path with dots: when a signal changes, and to what, in order."""


def read_vcd(path: Path) -> Changes:
    """Read a VCD file (IEEE 1364-2005, 18.2) with vectors and bits only; all of it."""
    lines = iter(path.read_text(encoding="ascii").splitlines())
    scopes: list[str] = []
    names: dict[str, list[str]] = {}
    for line in lines:
        words = line.split()
        if words[:1] == ["$scope"]:
            scopes.append(words[2])
        elif words[:1] == ["$upscope"]:
            scopes.pop()
        elif words[:1] == ["$var"]:
            names.setdefault(words[3], []).append(".".join([*scopes, words[4]]))
        elif words[:1] == ["$enddefinitions"]:
            break
    by_code: dict[str, list[tuple[int, int]]] = {code: [] for code in names}
    time = -1
    for line in lines:
        if line[:1] == "#":
            assert int(line[1:]) > time, "times rise"
            time = int(line[1:])
        elif line[:1] == "b":
            bits, code = line[1:].split()
            by_code[code].append((time, int(bits, 2)))
        elif line:
            by_code[line[1:]].append((time, int(line[0])))
    return {name: by_code[code] for code, paths in names.items() for name in paths}


def read_fst(path: Path) -> Changes:
    """Read an FST file with vectors and bits only, as GTKWave's fstapi.c does; all of it."""
    data = path.read_bytes()
    blocks: list[tuple[int, bytes]] = []
    place = 0
    while place < len(data):
        length = int.from_bytes(data[place + 1 : place + 9])
        blocks.append((data[place], data[place + 9 : place + 1 + length]))
        place += 1 + length
    assert place == len(data), "the last block is whole"
    assert blocks[0][0] == 0, "a file begins with its header"
    hierarchy = next(content for kind, content in blocks if kind == 6)
    size = int.from_bytes(hierarchy[:8])
    names, widths = _hierarchy(unpack_lz4(hierarchy[8:], size))
    by_handle: list[list[tuple[int, int]]] = [[] for _ in widths]
    for kind, content in blocks:
        if kind == 8:
            _values(content, widths, by_handle)
    return {name: by_handle[handle] for name, handle in names}


def unpack_lz4(data: bytes, size: int) -> bytes:
    """Return what a block of LZ4 stands for."""
    out = bytearray()
    place = 0

    def length(first: int) -> int:
        nonlocal place
        total = first
        while first == 15 and data[place] == 255:
            total += 255
            place += 1
        if first == 15:
            total += data[place]
            place += 1
        return total

    while place < len(data):
        token = data[place]
        place += 1
        count = length(token >> 4)
        out += data[place : place + count]
        place += count
        if place == len(data):
            break
        distance = int.from_bytes(data[place : place + 2], "little")
        place += 2
        assert 0 < distance <= len(out)
        # A match may overlap what it makes: then it repeats.
        count, source = length(token & 15) + 4, out[-distance:]
        out += (source * -(-count // distance))[:count]
    assert len(out) == size
    return bytes(out)


def _number(data: bytes, place: int) -> tuple[int, int]:
    """Return an unsigned LEB128 number and the place behind it."""
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, place


def _signed(data: bytes, place: int) -> tuple[int, int]:
    start = place
    value, place = _number(data, place)
    bits = 7 * (place - start)
    return value - (1 << bits) if value >> (bits - 1) else value, place


def _text(data: bytes, place: int) -> tuple[str, int]:
    end = data.index(0, place)
    return data[place:end].decode(), end + 1


def _hierarchy(data: bytes) -> tuple[list[tuple[str, int]], list[int]]:
    """Return the path and the handle, from 0, of each signal, and the bits of each handle."""
    scopes: list[str] = []
    names: list[tuple[str, int]] = []
    widths: list[int] = []
    place = 0
    while place < len(data):
        kind = data[place]
        place += 1
        if kind == 254:
            name, place = _text(data, place + 1)
            _, place = _text(data, place)
            scopes.append(name)
        elif kind == 255:
            scopes.pop()
        else:
            name, place = _text(data, place + 1)
            bits, place = _number(data, place)
            alias, place = _number(data, place)
            if not alias:
                widths.append(bits)
            names.append((".".join([*scopes, name.split(" ")[0]]), (alias or len(widths)) - 1))
    return names, widths


def _values(data: bytes, widths: list[int], changes: list[list[tuple[int, int]]]) -> None:
    """Add what one block says."""
    times = list(_times(data))
    tail = len(data) - 24 - int.from_bytes(data[-16:-8])
    place = 24
    size, place = _number(data, place)
    packed, place = _number(data, place)
    count, place = _number(data, place)
    initial = data[place : place + packed]
    initial = initial if packed == size else zlib.decompress(initial)
    waves = place + packed
    assert count == len(widths)
    first = 0
    for handle, bits in enumerate(widths):
        text = initial[first : first + bits]
        first += bits
        known = not text.strip(b"01")
        if known and (not changes[handle] or changes[handle][-1][1] != int(text, 2)):
            changes[handle].append((times[0], int(text, 2)))
    _, waves = _number(data, waves)
    assert data[waves : waves + 1] == b"4", "values are packed as LZ4"
    table_bytes = int.from_bytes(data[tail - 8 : tail])
    table = data[tail - 8 - table_bytes : tail - 8]
    chains: list[bytes | None] = [None] * len(widths)
    starts: list[int] = []
    owners: list[int] = []
    aliases: list[tuple[int, int]] = []
    handle = place = 0
    offset = waves
    before = 0
    while place < len(table):
        value, place = _signed(table, place)
        if not value & 1:
            # A run of signals without changes is unsigned.
            start = place
            while start and (start == place or table[start - 1] >= 0x80):
                start -= 1
            run, _ = _number(table, start)
            handle += run >> 1
            continue
        value >>= 1
        if value > 0:
            offset += value
            starts.append(offset)
            owners.append(handle)
        else:
            before = value or before
            aliases.append((handle, -before - 1))
        handle += 1
    ends = [*starts[1:], tail - 8 - table_bytes]
    for owner, start, end in zip(owners, starts, ends, strict=True):
        length, place = _number(data, start)
        chains[owner] = unpack_lz4(data[place:end], length) if length else data[place:end]
    for handle, source in aliases:
        chains[handle] = chains[source]
    for handle, chain in enumerate(chains):
        for index, value in _chain(chain or b"", widths[handle]):
            entry = changes[handle]
            if entry and entry[-1][0] == times[index]:
                entry.pop()
            entry.append((times[index], value))


def _times(data: bytes) -> Iterator[int]:
    size, packed, count = struct.unpack(">QQQ", data[-24:])
    content = data[-24 - packed : -24]
    content = content if packed == size else zlib.decompress(content)
    place = time = 0
    for _ in range(count):
        step, place = _number(content, place)
        time += step
        yield time


def _chain(data: bytes, bits: int) -> Iterator[tuple[int, int]]:
    """Yield the changes of one signal: index of the time, value."""
    place = index = 0
    while place < len(data):
        step, place = _number(data, place)
        if bits == 1:
            assert not step & 1
            index += step >> 2
            yield index, step >> 1 & 1
            continue
        assert not step & 1
        index += step >> 1
        count = -(-bits // 8)
        yield index, int.from_bytes(data[place : place + count]) >> (8 * count - bits)
        place += count

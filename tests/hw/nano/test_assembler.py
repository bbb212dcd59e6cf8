"""The assembler of the firmware: what it makes of labels, words and constants, and its errors."""

from __future__ import annotations

import pytest
from celosia.hw.contract.config import preset
from celosia.hw.contract.regs import IDENTITY, REGISTERS, address_of, capability_words
from celosia.hw.nano.assembler import Assembler, Word
from celosia.hw.nano.firmware.image import firmware
from celosia.hw.nano.instructions import CODE_WORDS, DATA_WORDS, In, Op, Out, encode
from hypothesis import given
from hypothesis import strategies as st

FIRST_WORD = 10
SIGNED = {Op.IMMEDIATE, Op.ADD_IMMEDIATE}
PLACES = {op for op in Op if op <= Op.STORE}
PORTS = {op for op in Op if op >= Op.IN}


@pytest.fixture
def a() -> Assembler:
    """An assembler whose data begins at `FIRST_WORD`."""
    return Assembler(first_word=FIRST_WORD)


# Encodings


def test_encodings_differ_and_fit() -> None:
    codes = {op: encode(op) for op in Op}
    assert len(set(codes.values())) == len(codes)
    assert all(0 <= code < 1 << 16 for code in codes.values())


@given(op=st.sampled_from(list(Op)), argument=st.integers(-5000, 5000))
def test_arguments_that_do_not_fit_are_refused(op: Op, argument: int) -> None:
    if op in SIGNED:
        low, high = -2048, 2047
    elif op in PLACES:
        low, high = 0, DATA_WORDS - 1
    elif op in PORTS:
        low, high = 0, 255
    else:
        low, high = 0, 4095
    if low <= argument <= high:
        code = encode(op, argument)
        bits = (high - low + 1).bit_length() - 1
        assert code >> bits == encode(op) >> bits
        assert code & (1 << bits) - 1 == argument & (1 << bits) - 1
    else:
        with pytest.raises(ValueError, match=f"{op.name} takes .* {low} to {high}, not {argument}"):
            encode(op, argument)


# Data


def test_words_follow_one_another(a: Assembler) -> None:
    one, three, last = a.word("one"), a.word("three", count=3), a.word("last")
    assert [word.address for word in (one, three, three[2], last)] == [10, 11, 13, 14]
    assert three[2].name == "three[2]"
    image = a.image()
    assert image.words == {"one": 10, "three": 11, "last": 14}
    assert image.data == (0,) * 15


def test_tables_constants_and_places_have_values(a: Assembler) -> None:
    table = a.table("table", [1, -1, 1 << 31])
    minus = a.constant(-5)
    a.place("register", 3, -2)
    # The same value is one word, however it is written.
    assert a.constant((1 << 32) - 5) is minus
    image = a.image()
    assert image.data[table.address : table.address + 3] == (1, 0xFFFF_FFFF, 1 << 31)
    assert image.data[minus.address] == 0xFFFF_FFFB
    assert image.data[3] == 0xFFFF_FFFE
    assert image.words["register"] == 3


@pytest.mark.parametrize(
    ("value", "load", "add", "sub"),
    [
        (5, Op.IMMEDIATE, Op.ADD_IMMEDIATE, Op.ADD_IMMEDIATE),
        (2047, Op.IMMEDIATE, Op.ADD_IMMEDIATE, Op.ADD_IMMEDIATE),
        (-2048, Op.IMMEDIATE, Op.ADD_IMMEDIATE, Op.SUB),
        (2048, Op.LOAD, Op.ADD, Op.ADD_IMMEDIATE),
        (-2049, Op.LOAD, Op.ADD, Op.SUB),
        (1 << 31, Op.LOAD, Op.ADD, Op.SUB),
    ],
)
def test_numbers_are_immediate_where_they_fit(
    a: Assembler, value: int, load: Op, add: Op, sub: Op
) -> None:
    a.load(value)
    a.add(value)
    a.sub(value)
    word = a.constant(value).address
    immediate = {Op.IMMEDIATE: value, Op.ADD_IMMEDIATE: value}
    assert a.image().code == (
        encode(load, immediate.get(load, word)),
        encode(add, immediate.get(add, word)),
        encode(sub, -value if sub is Op.ADD_IMMEDIATE else word),
    )


# Code


def test_short_forms(a: Assembler) -> None:
    x, y = a.word("x"), a.word("y")
    a.move(y, x)
    a.increase(x, 1)
    a.bits_and(x)
    a.bits_or(y)
    a.bits_xor(y)
    a.read(In.CYCLES)
    a.write(Out.TRACE, y)
    a.write(Out.FINISH)
    a.multiply(x, y, In.PRODUCT_LOW)
    a.multiply(None, y, In.PRODUCT_Q31)
    a.store(x, y)
    assert a.image().code == tuple(
        encode(op, argument)
        for op, argument in (
            (Op.LOAD, 10), (Op.STORE, 11),
            (Op.LOAD, 10), (Op.ADD_IMMEDIATE, 1), (Op.STORE, 10),
            (Op.AND, 10), (Op.OR, 11), (Op.XOR, 11),
            (Op.IN, In.CYCLES),
            (Op.LOAD, 11), (Op.OUT, Out.TRACE), (Op.OUT, Out.FINISH),
            (Op.FACTOR_A, 10), (Op.FACTOR_B, 11), (Op.IN, In.PRODUCT_LOW),
            (Op.OUT, Out.FACTOR_A), (Op.FACTOR_B, 11), (Op.IN, In.PRODUCT_Q31),
            (Op.STORE, 10), (Op.STORE, 11),
        )
    )  # fmt: skip


def test_labels_may_be_used_before_they_are_there(a: Assembler) -> None:
    a.jump("later")
    a.label("loop")
    a.emit(Op.JUMP_ZERO, "loop")
    a.label("later")
    a.call("loop")
    image = a.image()
    assert image.labels == {"loop": 1, "later": 2}
    assert image.code == (encode(Op.JUMP, 2), encode(Op.JUMP_ZERO, 1), encode(Op.CALL, 1))


def test_blocks(a: Assembler) -> None:
    counter, keep = a.word("counter"), a.word("keep")
    with a.repeat(counter):
        a.load(7)
    with a.unless(Op.JUMP_NEGATIVE):
        a.load(8)
    with a.routine("leaf"):
        a.load(9)
    with a.routine("caller", keep):
        a.call("leaf")
    assert a.image().code == tuple(
        encode(op, argument)
        for op, argument in (
            (Op.IMMEDIATE, 7), (Op.LOAD, 10), (Op.ADD_IMMEDIATE, -1), (Op.STORE, 10),
            (Op.JUMP_NONZERO, 0),
            (Op.JUMP_NEGATIVE, 7), (Op.IMMEDIATE, 8),
            (Op.IMMEDIATE, 9), (Op.RETURN, 0),
            (Op.LINK, 0), (Op.STORE, 11), (Op.CALL, 7), (Op.LOAD, 11), (Op.JUMP_TO_A, 0),
        )
    )  # fmt: skip


def test_new_labels_differ(a: Assembler) -> None:
    assert a.new_label("x") != a.new_label("x")


# Errors


def test_names_are_given_once(a: Assembler) -> None:
    a.word("x")
    a.label("x")
    with pytest.raises(AssertionError, match="two words are called x"):
        a.word("x")
    with pytest.raises(AssertionError, match="two labels are called x"):
        a.label("x")


def test_a_label_that_is_missing(a: Assembler) -> None:
    a.call("nowhere")
    with pytest.raises(ValueError, match="no label nowhere"):
        a.image()


def test_an_address_beyond_data_memory(a: Assembler) -> None:
    a.load(Word("far", DATA_WORDS))
    with pytest.raises(ValueError, match=f"LOAD takes .* not {DATA_WORDS}"):
        a.image()


def test_memories_can_be_filled_and_no_more(a: Assembler) -> None:
    for _ in range(CODE_WORDS):
        a.load(1)
    a.word("rest", count=DATA_WORDS - FIRST_WORD)
    image = a.image()
    assert (len(image.code), len(image.data)) == (CODE_WORDS, DATA_WORDS)
    a.load(1)
    message = f"{CODE_WORDS + 1} instructions and {DATA_WORDS} words.*{CODE_WORDS} and {DATA_WORDS}"
    with pytest.raises(ValueError, match=message):
        a.image()


def test_too_much_data(a: Assembler) -> None:
    a.word("all", count=DATA_WORDS - FIRST_WORD + 1)
    with pytest.raises(ValueError, match=f"and {DATA_WORDS + 1} words"):
        a.image()


# The firmware


@pytest.mark.parametrize("acc_depth", [16, 128, 4096])
def test_firmware_of_other_configurations(acc_depth: int) -> None:
    """It fits whatever the sizes of the memories, and shows them where the host reads them."""
    config = preset("nano").with_(acc_depth=acc_depth, act_bytes=4096, queue_depth=2)
    image = firmware(config)
    assert len(image.code) <= CODE_WORDS
    assert len(image.data) <= DATA_WORDS
    shown = {"identity": IDENTITY, "config_hash": config.hash}
    shown |= {f"capability{n}": word for n, word in enumerate(capability_words(config))}
    for name, value in shown.items():
        assert image.data[address_of(name) // 4] == value


def test_firmware_keeps_off_the_registers() -> None:
    """The words that the host sees are named ones alone; the firmware's own come after them."""
    image = firmware(preset("nano"))
    last = max(entry.address for entry in REGISTERS) // 4
    own = {name: address for name, address in image.words.items() if address <= last}
    assert set(own) <= {entry.name for entry in REGISTERS}
    addresses = sorted(address for address in image.words.values() if address > last)
    assert addresses[0] == last + 1
    assert len(set(addresses)) == len(addresses)


def test_firmware_that_is_too_large() -> None:
    """The longest queues that a configuration may have still fit; one word more does not."""
    assert firmware(preset("nano").with_(queue_depth=8)).data
    a = Assembler(first_word=0)
    a.word("all", count=DATA_WORDS + 1)
    with pytest.raises(ValueError, match=f"room for {CODE_WORDS} and {DATA_WORDS}"):
        a.image()

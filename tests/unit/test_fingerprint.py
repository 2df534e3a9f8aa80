"""Fingerprints of the rows of a read."""

import random
from copy import deepcopy
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from shared.fingerprint import Encoder, Fingerprint, after_storing
from shared.rest import parse_json

Rows = dict[int, str]


def rows(number: int) -> Rows:
    return {key: f"row {key}" for key in range(number)}


def taken(read: Rows, before: str = "", form: str = "") -> Fingerprint:
    fingerprint = Fingerprint(before, form)
    items = list(read.items())
    for start in range(0, len(items), 700):
        batch = items[start : start + 700]
        fingerprint.add([encoded(key) for key, _ in batch], [repr(row).encode() for row in batch])
    return fingerprint


def encoded(key: int) -> bytes:
    return str(key).encode()


def sent(before: Rows, after: Rows) -> Rows | None:
    """What is sent of the rows ``after``, None if all replace the table."""
    flags = taken(after, taken(before).to_text()).to_send()
    return None if flags is None else {k: after[k] for k, flag in zip(after, flags) if flag}  # noqa: B905


@pytest.mark.parametrize("number", [0, 1, 1_000, 1_001, 20_000])
def test_rows_that_did_not_change_are_not_sent(number: int) -> None:
    """They may come in any order."""
    before = rows(number)
    shuffled = list(before.items())
    random.Random(3).shuffle(shuffled)
    assert sent(before, dict(shuffled)) == {}
    assert taken(before, taken(before).to_text()).is_unchanged


@pytest.mark.parametrize("number", [1, 1_000, 5_000])
def test_a_row_that_is_missing_has_all_others_replace_the_table(number: int) -> None:
    """Also where another one came for it, or a row changed."""
    before = rows(number)
    fewer = {key: row for key, row in before.items() if key}
    assert sent(before, fewer) is None
    assert sent(before, {**fewer, number: "new"}) is None
    assert sent(before, {number: "new", **fewer}) is None


def test_the_changed_part_of_a_large_table_is_sent() -> None:
    """Each changed row, and few others; of a table of a thousand rows all."""
    before = rows(20_000)
    found = sent(before, {**before, 7: "changed"})
    assert found is not None
    assert found[7] == "changed"
    assert len(found) < 20_000 / 20
    assert sent(rows(1_000), {**rows(1_000), 7: "changed"}) is None


def test_rows_behind_those_of_before_are_new() -> None:
    """Where new ones come in between, it is not known that none is missing."""
    before = rows(20_000)
    assert sent(before, {**before, 20_000: "new"}) == {20_000: "new"}
    assert sent(before, {20_000: "new", **before}) is None


def test_rows_that_were_stored_since_are_sent_again() -> None:
    """The destination may have another row than both reads saw, or none."""
    before = rows(20_000)
    text = after_storing(taken(before).to_text(), [encoded(7)])
    flags = taken(before, text).to_send()
    assert flags is not None
    assert flags[7]
    assert 1 <= sum(flags) < 20_000 / 20
    assert after_storing(text, []) == text
    assert not after_storing(taken(rows(1_000)).to_text(), [encoded(7)])


def test_a_fingerprint_of_another_form_tells_nothing() -> None:
    """Such as that of a table with other columns; or what no version has written."""
    before = taken(rows(5_000), form="id, name").to_text()
    assert taken(rows(5_000), before, form="id, name").is_unchanged
    assert taken(rows(5_000), before, form="id, name, town").to_send() is None
    for odd in ("", "?", before[:-8], before + "AAAA"):
        assert taken(rows(5_000), odd, form="id, name").to_send() is None


def test_a_read_that_begins_again_forgets_its_rows() -> None:
    """What was added before does not count."""
    before = taken(rows(3_000)).to_text()
    fingerprint = taken(rows(2_000), before)
    fingerprint.clear()
    for key, row in rows(3_000).items():
        fingerprint.add([encoded(key)], [repr((key, row)).encode()])
    assert fingerprint.is_unchanged
    assert fingerprint.to_text() == before


def test_the_state_stays_small() -> None:
    """Whatever the size of the table."""
    assert len(taken(rows(1_000)).to_text()) <= 40
    assert len(taken(rows(30_000)).to_text()) <= 512


def test_a_stored_key_that_is_missing_has_all_rows_replace_the_table() -> None:
    """Though the list is what it was: the destination has one row more."""
    before = rows(5_000)
    text = after_storing(taken(before).to_text(), [encoded(5_000)])
    assert taken(before, text).to_send() is None
    flags = taken({**before, 5_000: "new"}, text).to_send()
    assert flags is not None
    assert flags[5_000]
    assert sum(flags) < 5_000 / 20


def test_stored_keys_fill_the_text_up_to_its_limit() -> None:
    """Then nothing is known any more."""
    text, longest = taken(rows(5_000)).to_text(), 0
    for key in range(100):
        text = after_storing(text, [encoded(key), encoded(key)])
        longest = max(longest, len(text))
        if not text:
            break
        assert not taken(rows(5_000), text).is_unchanged
        flags = taken(rows(5_000), text).to_send()
        assert flags is not None
        assert all(flags[: key + 1])
    assert not text
    assert key > 15
    assert longest <= 512


def test_a_table_that_keeps_its_rows_gets_those_that_changed() -> None:
    """Whatever is missing, and wherever new ones come."""
    before = rows(20_000)
    after = {20_000: "new", **before, 7: "changed"}
    del after[9]
    flags = taken(after, taken(before).to_text()).to_add()
    found = {key for key, flag in zip(after, flags, strict=True) if flag}
    assert {20_000, 7} <= found
    assert len(found) < 20_000 / 8
    assert not any(taken(before, taken(before).to_text()).to_add())
    assert all(taken(before).to_add())


def test_without_keys_only_the_whole_is_told_from_another() -> None:
    """And it is the same as with keys."""
    fingerprint = Fingerprint()
    fingerprint.add_without_keys([repr(item).encode() for item in rows(5_000).items()])
    text = fingerprint.to_text()
    assert len(text) == 40
    assert taken(rows(5_000), text).is_unchanged
    assert taken({**rows(5_000), 7: "changed"}, text).to_send() is None


def test_rows_among_others_are_known_and_prove_no_whole() -> None:
    """None has to be sent, and a table that has them may have others."""
    text = taken(rows(5_000)).to_text(among_others=True)
    same = taken(rows(5_000), text)
    assert not any(same.to_add())
    assert not same.is_unchanged
    assert same.to_send() is None
    assert after_storing(text, [encoded(7)]) == ""


def test_a_fingerprint_with_keys_tells_nothing_of_rows_without() -> None:
    """A list whose other table was forgotten is taken for a first load; all its rows are sent."""
    fingerprint = Fingerprint(taken(rows(5_000)).to_text())
    fingerprint.add_without_keys([b"changed", *(repr(n).encode() for n in range(4_999))])
    assert fingerprint.to_add() == [True] * 5_000


def test_rows_that_differ_have_other_bytes() -> None:
    """By a value, its type, or the column that it is in; equal ones have the same, also where a
    number knows its text."""
    encoder = Encoder({"a": "STRING", "b": "JSON", "at": "UTC_DATETIME"})
    moment = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
    values: list[Any] = [
        None,
        "",
        "1",
        1,
        1.0,
        True,
        [],
        {},
        [None],
        {"x": 1},
        {"x": "1"},
        "\ud800",
        2**70,
    ]
    values += [parse_json("[0.1]"), parse_json("[0.2]"), [0.1, None]]
    given = [{"a": "x", "b": value, "at": moment} for value in values]
    given += [{"a": None, "b": "x", "at": None}, {"a": "x", "b": None, "at": None}]
    given += [{"a": "x", "b": None, "at": moment + timedelta(microseconds=1)}]
    assert len(set(encoder.encode(given))) == len(given)
    assert encoder.encode(given) == encoder.encode(deepcopy(given))
    assert [encoder.encode([row]) for row in given] == [[row] for row in encoder.encode(given)]

"""Kinds of settings that SenSource alone has: lists, dates, and metrics as they stand in the
configuration, in a request and in a response."""

import re
from collections.abc import Callable
from datetime import date
from typing import Any, NamedTuple

from shared.settings import Kind

_METRIC = re.compile(r"([a-z][a-z0-9_]*)(?:\((min|max|avg|count)\))?")


class Metric(NamedTuple):
    """A metric: its ``name`` in a request, its ``field`` in the response, the ``type`` of that."""

    name: str
    field: str
    type: str


def _parse_metric(text: str) -> Metric:
    match = _METRIC.fullmatch(text)
    if not match:
        raise ValueError
    function = match[2] or "sum"
    return Metric(text, function + match[1], "DOUBLE" if function == "avg" else "LONG")


def each_once(items: str, parse: Callable[[str], Any]) -> Kind:
    """A list in a setting; ``items`` says of what, ``parse`` takes one of them."""

    def parse_all(text: str) -> tuple[Any, ...]:
        parsed = tuple(parse(item.strip()) for item in text.split(","))
        if len(set(parsed)) < len(parsed):
            raise ValueError
        return parsed

    return Kind(f"{items}, each once, with commas between", parse_all)


def _parse_date(text: str) -> date:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
        raise ValueError
    return date.fromisoformat(text)


DATE = Kind("a date as YYYY-MM-DD", _parse_date)
METRICS = each_once("metrics as name, name(min), (max), (avg) or (count)", _parse_metric)

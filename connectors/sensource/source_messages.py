"""What SenSource says beside its results, in words that show no value."""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from fivetran_connector_sdk import Operations as op

from shared.rest import as_list

_MOST = 5  # messages of a response, and of a sync, that are shown
_MOST_WORDS = 30
_MOST_COMPARED = 20_000_000  # characters of a message, times the names looked for in it
_PLAIN_WORD = re.compile(r"\(?[a-z]{1,19}(?:['-][a-z]{1,9})?[.,:;!?)]{0,2}")


def plain_messages(messages: Any, records: Sequence[Any]) -> tuple[str, ...]:
    """The ``messages`` of a response, whatever their form is: a list, an object with numbers as
    keys, or one message. Only plain words of them are shown. All else may be a value, and becomes
    "*", as do the names that stand in the ``records``."""
    listed = as_list(messages)
    if listed is None:
        listed = [messages]
    listed = [message for message in listed if message not in (None, "", [], {})][:_MOST]
    if not listed:
        return ()
    names = {record["name"] for record in records if _has_name(record)}
    return tuple(filter(None, (_in_plain_words(str(message), names) for message in listed)))


def _has_name(record: Any) -> bool:
    name = record.get("name") if isinstance(record, dict) else None
    return isinstance(name, str) and bool(name.strip())


def _in_plain_words(text: str, names: Collection[str]) -> str:
    if len(text) * len(names) > _MOST_COMPARED:
        return "*"
    for name in sorted(names, key=len, reverse=True):  # one may be the beginning of another
        text = text.replace(name, " * ")
    words = (text[:1].lower() + text[1:]).split()[:_MOST_WORDS]
    return " ".join(word if _PLAIN_WORD.fullmatch(word) else "*" for word in words)


class Messages:
    """The messages of a sync and the tables that they came with. A context manager: at its end it
    shows them on the dashboard, in one warning, since the SDK shows ten a sync."""

    def __init__(self) -> None:
        self._tables: dict[str, list[str]] = {}  # by message

    def add(self, table: str, messages: Iterable[str]) -> None:
        for message in messages:
            tables = self._tables.setdefault(message, [])
            if table not in tables:
                tables.append(table)

    def __enter__(self) -> "Messages":
        return self

    def __exit__(self, *error: object) -> None:
        if not self._tables:
            return
        shown = [
            f'of {", ".join(tables)}, "{message}"'
            for message, tables in [*self._tables.items()][:_MOST]
        ]
        if len(self._tables) > _MOST:
            shown.append(f"and {len(self._tables) - _MOST} other messages")
        op.warning(f"SenSource says {'; '.join(shown)}")

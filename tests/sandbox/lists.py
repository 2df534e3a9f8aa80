"""What the simulators of sources with lists of records have in common."""

import random
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar

from typing_extensions import Self

from .server import Sandbox
from .texts import Texts

Record = dict[str, Any]


class RecordLists(Sandbox):
    """A simulated source with a list of records for each of ``lists``, in ``records``. They may be
    changed while it runs; ``insert``, ``change`` and ``delete`` do so as the source would.

    ``usual``: how many records each list has, unless the constructor is told otherwise.
    ``texts``: for each list the field with a text that changes, unless it is "name".
    ``changed_at``: the field with the time of the last change, of the records that have it.
    ``keys``: for each list the fields that tell records apart, unless that is "id". ``filtered``:
    the lists of which the source sends only what changed, if it is asked to. ``number``: that of
    the record which was made last. ``deleted``: of the lists in ``lists_deletes``, the keys of
    deleted records and, in the field ``deleted_at``, their times. ``limit``: how many requests are
    served until one is refused for its rate. ``served``: how many records were, by ``page``.

    A simulator has a method ``make_NAME`` and one ``row_of_NAME`` for each list, or ``make`` and
    ``row``, and views of its ``app`` that respond to requests.
    """

    lists: ClassVar[tuple[str, ...]]
    usual: ClassVar[Mapping[str, int]] = {}
    texts: ClassVar[Mapping[str, str]] = {}
    changed_at: ClassVar[str] = "updated_at"
    keys: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    filtered: ClassVar[tuple[str, ...]]
    deleted_at: ClassVar[str] = "deleted_at"
    limits: ClassVar = {
        **Sandbox.limits,
        "shared.listing.CHECKPOINT_ROWS": 5,
        "shared.listing.STREAMED_FIRST_LOAD": 8,
    }

    def __init__(self, *, seed: int = 1, **counts: int) -> None:
        super().__init__()
        self.key_fields = [field for fields in self.keys.values() for field in fields]
        self.number = self.served = 0
        self.random = random.Random(seed)
        self.fake = Texts(("en_GB", "de_DE", "ja_JP"), seed)
        self.records: dict[str, list[Record]] = {name: [] for name in self.lists}
        self.deleted: dict[str, list[Record]] = {name: [] for name in self.lists_deletes}
        self.limit: int | None = None
        self.grow(**{**self.usual, **counts})

    def grow(self, **counts: int) -> None:
        """Adds so many records to each list, which changed at any time in the last two years."""
        for name, count in counts.items():
            for _ in range(count):
                days, seconds = self.random.uniform(1, 700), self.random.random()
                changed = datetime.now(timezone.utc) - timedelta(days=days, seconds=seconds)
                self.records[name].append(self.make(name, changed))

    def make(self, name: str, changed: datetime) -> Record:
        """A new record of the list ``name``, which last changed then."""
        self.number += 1
        record: Record = getattr(self, f"make_{name}")(changed)
        return record

    def row(self, name: str, record: Record) -> Record:
        """The row that a destination must hold for a record of the list ``name``."""
        row: Record = getattr(self, f"row_of_{name}")(record)
        return row

    def text_field(self, name: str) -> str:
        """The field with a text that changes, in the records of a list."""
        return self.texts.get(name, "name")

    def key_of(self, name: str) -> tuple[str, ...]:
        """The fields that tell the records of a list apart."""
        return self.keys.get(name, ("id",))

    def stamp(self, moment: datetime) -> Any:
        """A time, in the form in which the source sends it."""
        return moment.isoformat()

    # What a simulator offers

    def expected(self) -> dict[str, list[Record]]:
        return {name: [self.row(name, r) for r in self.records[name]] for name in self.lists}

    def empty(self) -> None:
        for records in self.records.values():
            records.clear()

    def fill(self, count: int) -> None:
        for name, records in self.records.items():
            while len(records) > count:
                self.delete(name, len(records) - 1)
            for _ in range(count - len(records)):
                self.insert(name)

    def resent(self) -> dict[str, int]:
        return {}

    def place(self, text: str, more: Any) -> list[str]:
        for name in self.lists:
            self.change(name, 0, **{self.text_field(name): text, "unheard_of": more})
        return [*self.lists]

    def change_something(self) -> None:
        """In each list a record is new, one has changed, and one is deleted."""
        for name in self.lists:
            self.insert(name)
            self.change(name, 0, **{self.text_field(name): f"Revised {self.random.random()}"})
            self.delete(name, 1)

    @classmethod
    def small(cls, draw: random.Random) -> Self:
        """Each list has one record, some, or more than are stored at once."""
        return cls(**{name: draw.choice((1, 7, 12, 14)) for name in cls.lists})

    def mutate(self, draw: random.Random, *, deletes: bool = True) -> None:
        name = draw.choice(self.lists)
        records = self.records[name]
        kind = draw.choice(("insert", "change", "delete") if len(records) > 1 else ("insert",))
        kind = "change" if kind == "delete" and not deletes else kind
        position = draw.randrange(len(records))
        if kind == "insert":
            self.insert(name, position)
        elif kind == "change":
            self.change(name, position, **{self.text_field(name): f"Revised {draw.random()}"})
        else:
            self.delete(name, position)

    # What happens at the source

    def insert(self, name: str, position: int | None = None) -> Record:
        """Adds a record to a list, at its end or at ``position``."""
        with self.lock:
            record = self.make(name, datetime.now(timezone.utc))
            records = self.records[name]
            records.insert(len(records) if position is None else position, record)
            return record

    def change(self, name: str, position: int, /, **fields: Any) -> Record:
        """Changes a record, and the time of its last change where it has one."""
        with self.lock:
            record = self.records[name][position]
            self.remember(self.records[name], record)
            if self.changed_at in record:
                record[self.changed_at] = self.stamp(datetime.now(timezone.utc))
            record.update(fields)
            return record

    def delete(self, name: str, position: int) -> Record:
        """Deletes a record, and lists it as deleted where the source does so."""
        with self.lock:
            record = self.records[name].pop(position)
            if name in self.deleted:
                now = self.stamp(datetime.now(timezone.utc))
                key = {field: record[field] for field in self.key_of(name)}
                self.deleted[name].append({**key, self.deleted_at: now})
            return record

    # For responses

    def is_over_limit(self) -> bool:
        """Whether a request exceeds ``limit``. The next one does not, for its time has come."""
        if self.limit is None:
            return False
        self.limit -= 1
        if self.limit >= 0:
            return False
        self.limit = None
        return True

    def page(self, records: list[Record], number: int, size: int) -> tuple[list[Record], int]:
        """Page ``number``, from 1, of so many records, and how many pages there are: ties are in
        any order, and the count may be wrong."""
        found = self.tied(records)[(number - 1) * size : number * size]
        self.served += len(found)
        return found, -(-self.counted(records) // size)

    def values(self, *names: str, longer_than: int = 8) -> set[str]:
        """The texts of these fields in all records; short ones could be anywhere."""
        return {text for text in self._values(names) if len(text) > longer_than}

    def _values(self, names: tuple[str, ...]) -> Iterator[str]:
        for records in self.records.values():
            for record in records:
                yield from (str(record[name]) for name in names if name in record)


def since(
    records: list[Record],
    field: str,
    text: str | None,
    read: Callable[[Any], datetime] = lambda text: moment(text),
) -> list[Record]:
    """Those of ``records`` whose time in ``field`` is the one in ``text`` or later (None or empty:
    all). ``read``: how the source writes times, in its records and in its filter."""
    if not text:
        return records
    oldest = read(text)
    return [record for record in records if read(record[field]) >= oldest]


def moment(text: str) -> datetime:
    """The time in a text of ISO 8601."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))

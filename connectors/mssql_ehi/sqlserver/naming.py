"""Names of tables and columns: patterns that select them, and names at the destination."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import count
from typing import TypeVar

from shared.errors import SettingsError

SYNC_VALIDATION, SYNC_VALIDATION_TABLES = "SYNC_VALIDATION", "SYNC_VALIDATION_TABLES"
Name = tuple[str, str]  # schema and table
ColumnName = tuple[str, str, str]  # schema, table and column
_Named = TypeVar("_Named", bound=tuple[str, ...])
_AMBIGUOUS = re.compile(r'[.,\[\]"]|^\s|\s$')
_ADDED_COLUMNS = ("_fivetran_id", "_fivetran_deleted", "_fivetran_synced")


def bracketed(name: str) -> str:
    """A name as the server takes it, for example as the value of a parameter."""
    return f"[{name.replace(']', ']]')}]"


def quoted(name: str) -> str:
    """A name for a statement, where the driver halves per cent signs."""
    return bracketed(name).replace("%", "%%")


def literal(text: str) -> str:
    """A text for a statement, where the driver halves per cent signs."""
    return "N'" + text.replace("'", "''").replace("%", "%%") + "'"


@lru_cache(maxsize=16_384)
def label(*parts: str) -> str:
    """`schema.table`, with brackets where it would be ambiguous without, or where the settings
    would not take a part as it is."""
    return ".".join(bracketed(part) if _AMBIGUOUS.search(part) else part for part in parts)


def pattern(parts: Sequence[str]) -> str:
    """The pattern for a name. A part that holds a point was quoted: it is one part of the name."""
    return label(*parts) if any("." in part for part in parts) else ".".join(parts)


_LISTED = 500  # tables that a statement names


class Chosen:
    """The ``names`` of the tables of which something is asked, of as many as there are ``of``."""

    def __init__(self, names: Iterable[Name], of: int) -> None:
        self.names = frozenset(names)
        few = len(self.names) <= _LISTED and len(self.names) < of
        self._listed = ", ".join(sorted({literal(n) for _, n in self.names})) if few else ""

    def condition(self, column: str) -> str:
        """The condition, with AND before it, by which the server leaves out most other tables;
        "" where they are not worth it. ``column``: that of the tables' names."""
        return f" AND {column} IN ({self._listed})" if self._listed else ""


def select(
    tables: Iterable[Name],
    include: Sequence[str],
    exclude: Sequence[str],
    views: Iterable[Name] = (),
    include_views: Sequence[str] = (),
) -> set[Name]:
    """Those of ``tables`` that match a pattern of ``include``, if there is one, and those of
    ``views`` that match one of ``include_views``; of both none that matches one of ``exclude``.
    Raises SettingsError for patterns that match nothing."""
    tables, views, faults = list(tables), list(views), list[str]()
    what = "table or view" if include_views else "table"
    chosen = _matching(tables, "tables", include, "table", faults) if include else set(tables)
    chosen |= _matching(views, "views", include_views, "view", faults)
    chosen -= _matching([*tables, *views], "exclude_tables", exclude, what, faults)
    _raise(faults)
    return chosen


def of_each(names: Iterable[Name], patterns: Iterable[str]) -> dict[str, list[Name]]:
    """The names that match each pattern."""
    found = _all_matching(names, set(patterns))
    return {pattern: sorted(found[pattern]) for pattern in patterns}


def select_columns(columns: Iterable[ColumnName], exclude: Sequence[str]) -> set[ColumnName]:
    """Those of ``columns`` that match a pattern of ``exclude``. Raises SettingsError for patterns
    that match nothing."""
    faults: list[str] = []
    found = _matching(columns, "exclude_columns", exclude, "column", faults)
    _raise(faults)
    return found


def _matching(
    every: Iterable[_Named], key: str, patterns: Sequence[str], what: str, faults: list[str]
) -> set[_Named]:
    """What matches the patterns of the setting ``key``. A line for each that matches nothing is
    added to ``faults``."""
    matching = _all_matching(every, set(patterns))
    faults += [
        f"{key}: {pattern!r} matches no {what} that mssql_user may see"
        for pattern in patterns
        if not matching[pattern]
    ]
    return {name for pattern in patterns for name in matching[pattern]}


def _raise(faults: Sequence[str]) -> None:
    if faults:
        raise SettingsError("The configuration is wrong:\n" + "\n".join(faults))


def _all_matching(every: Iterable[_Named], patterns: set[str]) -> dict[str, set[_Named]]:
    """The names that match each pattern: in any case, unless names differ in case alone, and one
    of them is spelled like the pattern. Names that match none are not kept."""
    found: dict[str, dict[tuple[str, ...], list[_Named]]]
    found = {pattern: defaultdict(list) for pattern in patterns}
    patterns_of = _Patterns(patterns).matching
    for name in every:
        lower = tuple(part.casefold() for part in name)
        for pattern in patterns_of(lower):
            found[pattern][lower].append(name)
    return {
        pattern: {name for twins in spelled.values() for name in _spelled_like(twins, pattern)}
        for pattern, spelled in found.items()
    }


def _spelled_like(twins: list[_Named], pattern: str) -> list[_Named]:
    """Those of several names that are spelled like the pattern in its case, else all."""
    if len(twins) == 1:
        return twins
    exactly = _Like(pattern)
    return [name for name in twins if _matches(name, exactly, pattern)] or twins


class _Patterns:
    """Finds the patterns that a name matches; those without * by a look-up, since a user may list
    thousands of tables."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._plain: dict[str, list[str]] = defaultdict(list)
        self._others: list[tuple[str, _Like]] = []
        for pattern in patterns:
            folded = pattern.casefold()
            if "*" in pattern or "[" in pattern:
                self._others.append((pattern, _Like(folded)))
            else:
                self._plain[folded].append(pattern)

    def matching(self, lower: tuple[str, ...]) -> list[str]:
        """``lower``: the parts of the name, casefolded."""
        found: list[str] = []
        if self._plain:
            for start in range(len(lower)):
                found += self._plain.get(".".join(lower[start:]), ())
        found += [pattern for pattern, like in self._others if _matches(lower, like, pattern)]
        return found


class _Like:
    """A pattern in which ``*`` stands for any text. A regular expression would try the ways to
    divide a name among the stars, of which there are a great many."""

    def __init__(self, pattern: str) -> None:
        self._start, *others = pattern.split("*")
        self._end = others.pop() if others else None
        self._between = [*filter(None, others)]

    def fits(self, name: str) -> bool:
        """What is between two stars may be found as early as possible."""
        if self._end is None:
            return name == self._start
        at, end = len(self._start), len(name) - len(self._end)
        if at > end or not (name.startswith(self._start) and name.endswith(self._end)):
            return False
        for text in self._between:
            found = name.find(text, at, end)
            if found < 0:
                return False
            at = found + len(text)
        return True


def _matches(name: tuple[str, ...], like: _Like, pattern: str) -> bool:
    # A name may hold a point itself; a pattern without one is of the last part, wherever that is.
    ends = [name[start:] for start in range(len(name))]
    points = pattern.count(".")
    return any(
        like.fits(".".join(parts)) or ("[" in pattern and like.fits(label(*parts)))
        for parts in ends
        if len(parts) - 1 <= points
    )


def of_tables(
    tables: Sequence[Name],
    kept: Mapping[Name, str] | None = None,
    taken: Iterable[str] = (),
    reserved: Iterable[str] = (SYNC_VALIDATION, SYNC_VALIDATION_TABLES),
) -> tuple[list[str], list[str]]:
    """The names at the destination, and warnings. ``tables`` are in the order in which they were
    created; ``kept``: names that tables have already; ``taken``: names of other tables;
    ``reserved``: names that no table gets.

    Of tables that would have the same name, those outside dbo get the name of their schema as a
    prefix; where that is not enough, the later one gets a number.
    """
    kept = kept or {}
    used = {stored_table_name(name) for name in (*reserved, *taken)}
    destinations = {}
    for table, name in kept.items():
        if stored_table_name(name) not in used:
            used.add(stored_table_name(name))
            destinations[table] = name
    plain = _with_schemas(tables)
    wanted = {stored_table_name(name) for name in plain.values()}
    free = _FreeNames(used, wanted, stored_table_name)
    warnings = []
    for table in tables:
        if table not in destinations:
            destinations[table] = free.take(plain[table])
        if destinations[table] != table[1]:
            warnings.append(_table_warning(*table, destinations[table]))
    return [destinations[table] for table in tables], warnings


def _with_schemas(tables: Sequence[Name]) -> dict[Name, str]:
    """The names that tables would have at the destination, with their schemas where several have a
    table of that name."""
    schemas = defaultdict(set)
    for schema, name in tables:
        schemas[stored_table_name(name)].add(schema.casefold())
    plain = {}
    for schema, name in tables:
        several = len(schemas[stored_table_name(name)]) > 1 and schema.casefold() != "dbo"
        latin = _latin(name, "table")
        plain[schema, name] = f"{schema}_{latin}" if several else latin
    return plain


def _table_warning(schema: str, name: str, destination: str) -> str:
    if destination == f"{schema}_{name}":
        return f"Several schemas have a table {name}: {schema}.{name} is stored as {destination}"
    return (
        f"{label(schema, name)} is stored as {destination}, since its own name is not possible at "
        "the destination, or is that of another table"
    )


def of_columns(
    label: str,
    columns: Sequence[str],
    kept: Mapping[str, str] | None = None,
    *,
    first: Collection[str] = (),
    as_before: bool = False,
) -> tuple[list[str], list[str]]:
    """The names at the destination, and warnings. ``columns`` are in their order; ``kept``: names
    that columns have already, also some that do not exist any more; ``first``: columns that have a
    name already, too, and are named before new ones. ``as_before``: as earlier versions named
    columns without a Latin letter.

    Of columns that would have the same name, the later one gets a number.
    """
    kept = kept or {}
    destinations = {name: kept[name] for name in columns if name in kept}
    taken = {*_ADDED_COLUMNS, *map(stored_name, kept.values())}
    plain = {name: name if as_before else _latin(name, "column") for name in columns}
    # A name that is free as it is must not be taken by one that needs a number.
    free = _FreeNames(taken, {*map(stored_name, plain.values())}, stored_name)
    for column in sorted(columns, key=lambda name: name not in first):
        if column not in destinations:
            destinations[column] = free.take(plain[column])
    warnings = [
        f"{label}: column {column} is stored as {destinations[column]}, since another one has "
        "its name"
        if destinations[column] != plain[column]
        else f"{label}: column {column} is stored as {destinations[column]}, since its name has "
        "no Latin letter"
        for column in columns
        if destinations[column] != column
    ]
    return [destinations[column] for column in columns], warnings


class _FreeNames:
    """Names that no other has: those in ``taken`` are not free, to which each new one is added.
    ``wanted``: what others will be called if they can. Both are as they are ``stored``."""

    def __init__(
        self, taken: set[str], wanted: Collection[str], stored: Callable[[str], str]
    ) -> None:
        self._taken, self._wanted, self._stored = taken, wanted, stored
        self._numbers: dict[str, Iterator[int]] = {}  # those not tried yet, by stored name

    def take(self, plain: str) -> str:
        """The name, with a number if it is taken: the first that no other has or will get."""
        name, stored = plain, self._stored(plain)
        if stored in self._taken:
            # What was taken stays so: a number is tried once, however many have the same name, or
            # one that is stored as the same.
            for number in self._numbers.setdefault(stored, count(2)):
                name = f"{plain}_{number}"
                stored = self._stored(name)
                if stored not in self._taken and stored not in self._wanted:
                    break
        self._taken.add(stored)
        return name


def to_remember(names: Mapping[str, str]) -> dict[str, str]:
    """Those of the ``names`` at the destination, by column, that the state must keep: of columns
    that would share a name, and of columns that have another name than they would get now."""
    plain = {name: _latin(name, "column") for name in names}
    shared = Counter(map(stored_name, plain.values()))
    return {
        name: destination
        for name, destination in names.items()
        if destination != plain[name] or shared[stored_name(plain[name])] > 1
    }


def _latin(name: str, otherwise: str) -> str:
    """The name, unless the destination would leave nothing of it but underscores."""
    return name if stored_name(name).strip("_") else otherwise


@lru_cache(maxsize=8192)  # the columns of the widest table, and names that many tables have
def stored_name(name: str) -> str:
    """The name that Fivetran makes of one: without accents, in lower case, with underscores
    between words and digits, and for what is no letter or digit.

    https://fivetran.com/docs/core-concepts#namingconventions
    """
    if not name.isascii():
        decomposed = unicodedata.normalize("NFD", name)
        name = "".join(c for c in decomposed if not unicodedata.combining(c))
    plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=\d)(?=\D)|(?<!\d)(?=\d)", "_", plain)
    return re.sub(r"_+", "_", parted).lower()


def stored_table_name(name: str) -> str:
    """The same for a table, which loses underscores before a letter at its beginning, too."""
    return re.sub(r"^_+(?=[a-z])", "", stored_name(name))

"""Finds the tables of the database, their columns and keys, and names them for the destination.

https://learn.microsoft.com/sql/relational-databases/system-information-schema-views/
"""

from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace

from . import (
    change_capture,
    destination_schemas,
    naming,
    restrictions,
    table_keys,
    type_mapping,
)
from .catalogue import Catalogue, Details
from .naming import Name, quoted
from .session import Session
from .source_tables import Capture, Column, SourceTable, known_columns
from .table_state import TableState

# The state of the tables by their labels, as `dbo.Patients`.
TableStates = Mapping[str, TableState]


@dataclass(frozen=True)
class DatabaseSchema:
    """What a sync reads.

    tables      the tables to sync
    all         labels of all tables that there are
    over_limit  labels of those that max_tables excludes
    warnings    what the user should know
    states      the state of the tables to sync, and of others that the destination may hold
    """

    tables: tuple[SourceTable, ...]
    all: frozenset[str]
    over_limit: tuple[str, ...]
    warnings: tuple[str, ...]
    states: dict[str, TableState]


def complete(
    session: Session,
    catalogue: Catalogue,
    states: TableStates,
    *,
    keep_names: bool = True,
    schemas: bool = False,
) -> DatabaseSchema:
    """The tables of the ``catalogue`` with their names and keys at the destination. ``states``:
    what the last sync saved of them. Without ``keep_names`` they are named as if nothing was
    saved, and a table that had other names is reloaded. With ``schemas`` each keeps the name of
    its schema at the destination. Raises SourceError.
    """
    labels = {name: naming.label(*name) for name in catalogue.names}
    states = _by_present_labels(labels, states)
    known = states if keep_names else {}
    named, warnings = _name_tables(catalogue, labels, known, schemas=schemas)
    completed = []
    complete_table = _Completion(session, catalogue, keep_names=keep_names).complete
    for table in catalogue.tables:
        state = states.get(table.label, TableState())
        schema, destination = named[_name(table)]
        renamed = replace(table, destination=destination, destination_schema=schema)
        completed_table, more = complete_table(renamed, state)
        completed.append(completed_table)
        warnings += more
    selected = {labels[name] for name in catalogue.selected}
    return DatabaseSchema(
        tuple(completed),
        frozenset(labels.values()),
        tuple(labels[name] for name in catalogue.over_limit),
        tuple(warnings),
        _states_to_keep(completed, {*labels.values()} - selected, states),
    )


def _name(table: SourceTable) -> Name:
    return table.schema, table.name


# Names


def _by_present_labels(labels: Mapping[Name, str], states: TableStates) -> dict[str, TableState]:
    """The states by the ``labels`` of today. Labels of older versions had no brackets, so that two
    tables could share one; and a table may be spelled in another case now."""
    sharing: dict[str, list[str]] = defaultdict(list)
    for (schema, name), today in labels.items():
        if today != (plain := f"{schema}.{name}"):
            sharing[plain].append(today)
    present = {label: state for label, state in states.items() if label not in sharing}
    for plain, those in sharing.items():
        if plain in states and len(those) == 1:
            present.setdefault(those[0], states[plain])
    there = {*labels.values()}
    spelled = {label.casefold(): label for label in present if label not in there}
    for today in sorted(there - present.keys()):
        if (before := spelled.pop(today.casefold(), None)) is not None:
            present[today] = present.pop(before)
    return present


def _name_tables(
    catalogue: Catalogue, labels: Mapping[Name, str], states: TableStates, *, schemas: bool
) -> tuple[dict[Name, destination_schemas.Stored], list[str]]:
    """The schemas and names at the destination of the tables that are selected, and warnings. A
    table keeps the name that it has in the state, also when it is not there: the destination still
    has its rows, and its key."""
    nothing = Details(0, "", "", shipped=False)

    def created(table: Name) -> tuple[str, int]:
        known = catalogue.details.get(table, nothing)
        return known.created, known.object_id

    selected = {labels[name]: name for name in catalogue.selected}
    saved = {
        label: (state.destination_schema, state.destination)
        for label, state in states.items()
        if state.destination is not None
    }
    kept = {selected[label]: known for label, known in saved.items() if label in selected}
    taken = [destination for label, destination in saved.items() if label not in selected]
    in_order = sorted(catalogue.selected, key=created)
    return destination_schemas.of_tables(in_order, kept, taken, schemas=schemas)


def _name_columns(table: SourceTable, state: TableState) -> tuple[SourceTable, list[str]]:
    """The names that columns have in the state stay theirs, also where one was dropped."""
    kept = state.column_names or {}
    every = [column.name for column in table.columns]
    destinations, warnings = naming.of_columns(
        table.label,
        every,
        kept,
        first=[column.name for column in _named_before(table, state)],
        as_before=state != TableState() and state.key_types is None,
    )
    by_name = dict(zip(every, destinations, strict=True))
    # What is as it was stays one object that thousands of tables share.
    columns = tuple(
        c if c.destination == by_name[c.name] else replace(c, destination=by_name[c.name])
        for c in table.columns
    )
    renamed = tuple(naming.to_remember({**kept, **by_name}).items())
    return replace(table, columns=columns, renamed=renamed), warnings


def _named_before(table: SourceTable, state: TableState) -> Sequence[Column]:
    """The columns that had a name when the state was saved, as far as it tells."""
    known = state.cursor.columns
    return known_columns(table.columns, known) or () if known else ()


# Completing the tables


class _Completion:
    """Completes tables by what the catalog views tell of all of them: restrictions, keys,
    estimates, Change Tracking."""

    def __init__(self, session: Session, catalogue: Catalogue, *, keep_names: bool) -> None:
        self._session, self._catalogue, self._keep_names = session, catalogue, keep_names

    def complete(self, table: SourceTable, state: TableState) -> tuple[SourceTable, list[str]]:
        """The table with its columns, its key and what else is known of it, and warnings."""
        name = _name(table)
        table, warnings = self._with_column_names(table, state)
        if _is_stored_elsewhere(table, state):
            state = TableState()  # there is no key yet under the name that it has now
        table, more = self._with_key(table, state)
        warnings += more
        if not table.fault and state.key_types not in (None, table_keys.types_of(table.key)):
            reason = table.reload_reason or "the type of its key changed"
            table = replace(table, reload_reason=reason)
        since, more = self._tracked_since(table)
        estimate = self._catalogue.estimates.get(name)
        warnings += more
        captures: tuple[Capture, ...] = ()
        if since is None and not table.fault:
            key = [column.name for column in table.key]
            found = self._catalogue.captures.get(name)
            captures, more = change_capture.choose(table.label, key, found)
            warnings += more
        table = replace(table, estimate=estimate, tracked_since=since, captures=captures)
        return table, warnings

    def _with_column_names(
        self, table: SourceTable, state: TableState
    ) -> tuple[SourceTable, list[str]]:
        """The table with the names of its columns, and with the reason why it is reloaded."""
        reason = _reload_reason(table, state) or _doubtful_names(table, state)
        named, warnings = _name_columns(table, TableState() if reason else state)
        if not self._keep_names and not reason and state != TableState():
            kept = named.columns
            named, warnings = _name_columns(table, TableState())
            reason = "" if named.columns == kept else "the names of its columns changed"
        return replace(named, reload_reason=reason), warnings

    def _with_key(self, table: SourceTable, state: TableState) -> tuple[SourceTable, list[str]]:
        """The table with its key and without the columns that are not read, and warnings."""
        indexes = self._catalogue.indexes.get(_name(table), [])
        restricted = self._catalogue.restrictions.get(_name(table), restrictions.Restrictions())
        excluded, masked = restricted.excluded, restricted.masked
        if len(excluded) == len(table.columns) and {*excluded.values()} == {restrictions.DENIED}:
            excluded = {}  # nothing of the table may be read: the server's error says so
        warnings = restrictions.warnings(table.label, excluded, masked)
        # No column of a primary key has nulls, whatever a catalog view says.
        primary = {name for i in indexes if i.primary for name in i.columns}
        columns = tuple(
            replace(c, nullable=c.nullable and c.name not in primary, masked=c.name in masked)
            if c.name in primary or c.name in masked
            else c
            for c in table.columns
        )
        table = replace(table, columns=columns)
        keys = table_keys.Keys(table, indexes, excluded, state.key, self._null_check(table))
        table, more = keys.choose()
        warnings += [*more, *_unknown_types(table)]
        unreadable = {*excluded.values()} - {restrictions.INTERNAL}
        if not (table.key or table.fault) and (masked or unreadable):
            warnings.append(
                f"{table.label} has no key, and some of its columns are masked or not read: rows "
                "that differ in nothing else become one"
            )
        return table, warnings

    def _null_check(self, table: SourceTable) -> Callable[[Column], bool]:
        """Asks the server whether a column of the table holds nulls."""

        def has_nulls(column: Column) -> bool:
            source = f"{quoted(table.schema)}.{quoted(table.name)}"
            asked = f"SELECT TOP (1) 1 AS one FROM {source} WHERE {quoted(column.name)} IS NULL"  # noqa: S608
            doing = f"a check of {column.name}, which was its key, for nulls"
            return self._session.optional(doing, asked) != []

        return has_nulls

    def _tracked_since(self, table: SourceTable) -> tuple[int | None, list[str]]:
        """Since which version Change Tracking tells the changes, None if it is not used, and what
        the user should know in that case."""
        since = self._catalogue.tracked.get(_name(table))
        if since is None or table.fault:
            return None, []
        # It names a row by its primary key, so that has to be the key of the destination, too.
        indexes = self._catalogue.indexes.get(_name(table), [])
        primary = {name for i in indexes if i.primary for name in i.columns}
        if table.key and primary != {column.name for column in table.key}:
            return None, [f"{table.label}: Change Tracking is not used, since it has another key"]
        if _name(table) not in self._catalogue.untold:
            return since, []
        warning = (
            f"{table.label} has Change Tracking, which mssql_user cannot read: it is not used "
            "unless you GRANT VIEW CHANGE TRACKING on the table to mssql_user"
        )
        return None, [warning]


def _reload_reason(table: SourceTable, state: TableState) -> str:
    """Why what the state says of a table is not of this one, "" if it is."""
    if table.identity is not None and state.identity not in (None, table.identity):
        return "the table was dropped and recreated at the source"
    if _is_stored_elsewhere(table, state):
        if state.destination_schema != table.destination_schema:
            return destination_schemas.CHANGED
        return "its name at the destination changed"
    return ""


def _is_stored_elsewhere(table: SourceTable, state: TableState) -> bool:
    """Whether the state is that of another table at the destination."""
    stored = state.destination_schema, state.destination
    return state.destination is not None and stored != (
        table.destination_schema,
        table.destination,
    )


def _doubtful_names(table: SourceTable, state: TableState) -> str:
    """Why a column may have got the name of another one at the destination, "" if none has."""
    known = state.cursor.columns
    if not known or known_columns(table.columns, known) is not None:
        return ""
    shared = naming.to_remember({column.name: column.name for column in table.columns})
    if shared.keys() <= (state.column_names or {}).keys():
        return ""
    return "columns were renamed or dropped, and others have their names at the destination now"


def _unknown_types(table: SourceTable) -> list[str]:
    return [
        f"{table.label}: column {column.name} has a type that mssql_user has no right on; it is "
        "read as text"
        if not column.info.name
        else f"{table.label}: the type {column.info.name} of column {column.name} is not known; "
        "it is read as text"
        for column in table.columns
        if column.type_mapping is type_mapping.UNKNOWN
    ]


def _states_to_keep(
    tables: Sequence[SourceTable], excluded: Container[str], states: TableStates
) -> dict[str, TableState]:
    """The states of the tables that are read, and what must be known of others if they come back:
    their names and keys at the destination. One of the ``excluded`` tables, those that are there
    and not selected, is forgotten if its key was refused, as the user was told to bring about."""
    kept = {t.label: states[t.label] for t in tables if t.label in states}
    for label, state in states.items():
        forgotten = label in excluded and state.key_refused
        if label not in kept and state.destination is not None and not forgotten:
            kept[label] = state.lasting()
    return kept

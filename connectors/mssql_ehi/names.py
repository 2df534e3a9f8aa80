"""Which tables are meant, and what tables and columns are called at the destination."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from shared.errors import SettingsError

SYNC_VALIDATION, SYNC_VALIDATION_TABLES = "SYNC_VALIDATION", "SYNC_VALIDATION_TABLES"
Name = tuple[str, str]  # schema and table
Folded = tuple[str, str]  # the same as they compare: without regard to case
_ADDED_COLUMNS = ("_fivetran_id", "_fivetran_deleted", "_fivetran_synced")


def fold(schema: str, table: str) -> Folded:
    return schema.casefold(), table.casefold()


def quoted(name: str) -> str:
    """A name as it stands in a statement; the driver's per cent sign is doubled, too."""
    return f"[{name.replace(']', ']]').replace('%', '%%')}]"


def patterns(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated list."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def select(tables: Sequence[Name], take: Sequence[str], exclude: Sequence[str]) -> set[Name]:
    """Those of ``tables`` that match a pattern of ``take``, if there is one, and none of
    ``exclude``. Raises SettingsError for patterns that match nothing."""
    taken: set[Name] = set() if take else set(tables)
    excluded: set[Name] = set()
    idle = []
    for key, chosen, given in (("tables", taken, take), ("exclude_tables", excluded, exclude)):
        for pattern in given:
            matching = {table for table in tables if _matches(table, pattern)}
            chosen |= matching
            if not matching:
                idle.append(f"{key}: {pattern!r} matches no table that mssql_user may see")
    if idle:
        raise SettingsError("The configuration is wrong:\n" + "\n".join(idle))
    return taken - excluded


def _matches(table: Name, pattern: str) -> bool:
    schema, name = fold(*table)
    expression = ".*".join(map(re.escape, pattern.casefold().split("*")))
    # A name may hold a point itself; without one the pattern is of a table in any schema.
    subjects = [name, f"{schema}.{name}"] if "." in pattern else [name]
    return any(re.fullmatch(expression, subject, re.DOTALL) for subject in subjects)


def of_tables(tables: Sequence[Name]) -> tuple[list[str], list[str]]:
    """The names at the destination, and warnings: of tables that would have one name, those
    outside dbo carry their schema's before it."""
    schemas = defaultdict(set)
    for schema, name in tables:
        schemas[stored_table_name(name)].add(schema.casefold())
    destinations, warnings = [], []
    for schema, name in tables:
        destination = name
        if len(schemas[stored_table_name(name)]) > 1 and schema.casefold() != "dbo":
            destination = f"{schema}_{name}"
            warnings.append(
                f"Several schemas have a table {name}: {schema}.{name} is stored as {destination}"
            )
        destinations.append(destination)
    return destinations, warnings


def check(tables: Iterable[tuple[str, str]]) -> None:
    """Raises SettingsError for two labels whose destinations end on one name."""
    own = (SYNC_VALIDATION, SYNC_VALIDATION_TABLES)
    taken = {stored_table_name(name): f"the connector's own {name}" for name in own}
    for label, destination in tables:
        other = taken.setdefault(stored_table_name(destination), label)
        if other != label:
            raise SettingsError(
                f"{other} and {label} would both be stored as "
                f"{stored_table_name(destination)}: name one of them in exclude_tables"
            )


def of_columns(label: str, columns: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names at the destination, and warnings: of columns that would have one name, the later
    gets a number."""
    # A name that is free as it is must not be taken by one that needs a number.
    wanted = Counter(map(stored_name, columns))
    taken, destinations, warnings = set(_ADDED_COLUMNS), [], []
    for column in columns:
        destination, number = column, 1
        while stored_name(destination) in taken or (
            number > 1 and stored_name(destination) in wanted
        ):
            number += 1
            destination = f"{column}_{number}"
        if number > 1:
            warnings.append(
                f"{label}: column {column} is stored as {destination}, since another one has "
                "its name"
            )
        taken.add(stored_name(destination))
        destinations.append(destination)
    return destinations, warnings


def stored_name(name: str) -> str:
    """The name that Fivetran makes of one: without accents, in lower case, with underscores
    between words and digits, and for what is no letter or digit.

    https://fivetran.com/docs/core-concepts#namingconventions
    """
    plain = "".join(c for c in unicodedata.normalize("NFD", name) if not unicodedata.combining(c))
    plain = re.sub(r"[^A-Za-z0-9_]", "_", plain)
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=\d)(?=\D)|(?<!\d)(?=\d)", "_", plain)
    return re.sub(r"_+", "_", parted).lower()


def stored_table_name(name: str) -> str:
    """The same for a table, which loses underscores before a letter at its beginning, too."""
    return re.sub(r"^_+(?=[a-z])", "", stored_name(name))

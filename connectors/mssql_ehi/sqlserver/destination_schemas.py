"""Schemas of the source as schemas of the destination.

The SDK puts the name of a declared schema behind that of the connection's: `dbo` becomes
`<connection>_dbo`, in lower case, and with an underscore for what is no letter or digit. (With
source naming it stays as it is.) Schemas of which it makes the same name are one there, so that
their tables are named together.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from . import naming
from .naming import Name

CHANGED = "its schema at the destination changed"  # why a table is reloaded
_OTHER = re.compile(r"\W", re.ASCII)
Stored = tuple[str | None, str]  # schema (None: the connection's own) and table


def of_schema(schema: str) -> str:
    """The name by which the SDK is told of a schema; it takes none of spaces alone."""
    return schema if schema.strip() else "_"


def of_tables(
    tables: Sequence[Name], kept: Mapping[Name, Stored], taken: Iterable[Stored], *, schemas: bool
) -> tuple[dict[Name, Stored], list[str]]:
    """The schema and the name of each table at the destination, and warnings: the arguments are
    those of ``naming.of_tables``. Names count in their own schema alone; without ``schemas`` all
    tables are in the connection's own."""
    if not schemas:
        own = {name: stored for name, (schema, stored) in kept.items() if schema is None}
        others = [stored for schema, stored in taken if schema is None]
        destinations, warnings = naming.of_tables(tables, own, others)
        pairs = zip(tables, destinations, strict=True)
        return {name: (None, destination) for name, destination in pairs}, warnings
    grouped: dict[str, list[Name]] = defaultdict(list)
    for name in tables:
        grouped[_stored(name[0])].append(name)
    found: dict[Name, Stored] = {}
    warnings = []
    others_by_schema = defaultdict(list)
    for schema, stored in taken:
        if schema is not None:
            others_by_schema[_stored(schema)].append(stored)
    for group, names in grouped.items():
        own = {
            name: stored
            for name, (schema, stored) in kept.items()
            if schema is not None and _stored(name[0]) == _stored(schema) == group
        }
        destinations, more = naming.of_tables(names, own, others_by_schema[group], reserved=())
        found |= {
            name: (of_schema(name[0]), destination)
            for name, destination in zip(names, destinations, strict=True)
        }
        warnings += more
    return found, warnings


def _stored(schema: str) -> str:
    """What tells a schema at the destination from others."""
    return _OTHER.sub("_", of_schema(schema)).lower()

"""The tables of a connector as the destination will have them, and its configuration, as text."""

import contextlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fivetran_connector_sdk import Logging
from rich.console import Console
from rich.table import Table as Printed

from shared.errors import ConnectorError
from shared.local import local_configuration
from shared.settings import Setting, declared
from tests.sandbox import create
from tests.sandbox.fivetran import load, stored_column, stored_table
from tools.paths import ROOT

_ID = "_fivetran_id"
_ADDED = {
    _ID: ("STRING", "A hash of the row, which is the key that Fivetran gives a table without one"),
    "_fivetran_deleted": ("BOOLEAN", "Whether the row is gone at the source"),
    "_fivetran_synced": ("UTC_DATETIME", "When the row was sent last"),
}
_ADDITIONAL = "What the source sent in fields that have no column of their own, as JSON"


@dataclass(frozen=True)
class StoredTable:
    """A table with its names at the destination. ``columns``: their types and descriptions.
    ``schema``: the schema that the connector asks for, "" for that of the connection."""

    name: str
    source: str
    schema: str
    key: tuple[str, ...]
    columns: dict[str, tuple[str, str]]


def print_schema(name: str, format_: str) -> None:
    """Prints the tables of a connector ("text" or "dbt"), or the JSON Schema of its configuration
    ("json"). The tables are those of configuration.local.json or, without it, of the simulator.

    Raises SystemExit with a sentence if the tables cannot be found out.
    """
    if format_ == "json":
        print(json.dumps(json_schema(declared(load(name).Settings), name), indent=2))
        return
    Logging.LOG_LEVEL = Logging.LOG_LEVEL or Logging.Level.WARNING
    with contextlib.redirect_stdout(sys.stderr):  # the log is no part of what is printed
        tables = _tables_of_account(name) or tables_of_simulator(name)
    if format_ == "dbt":
        print(dbt_sources(name, tables), end="")
        return
    console = Console(width=100)
    for table in tables:
        console.print(_printed(table))


def _tables_of_account(name: str) -> list[StoredTable]:
    """The tables with configuration.local.json; none if there is no such file."""
    folder = ROOT / "connectors" / name
    if not (folder / "configuration.local.json").exists():
        print(f"# {name} has no configuration.local.json: with its simulator", file=sys.stderr)
        return []
    try:
        return stored_tables(name, local_configuration(folder))
    except ConnectorError as error:
        sys.exit(f"The tables of {name} cannot be found out: {error}")


def tables_of_simulator(name: str) -> list[StoredTable]:
    with create(name) as simulator:
        return stored_tables(name, simulator.configuration())


def stored_tables(name: str, configuration: Mapping[str, str]) -> list[StoredTable]:
    """The tables that the connector declares with a configuration, under the names that the SDK
    gives them, with the columns that Fivetran adds."""
    readme = (ROOT / "connectors" / name / "README.md").read_text(encoding="utf-8")
    entries: list[dict[str, Any]] = load(name).schema(configuration)
    return [_stored(entry, readme) for entry in entries]


def _stored(entry: Mapping[str, Any], readme: str) -> StoredTable:
    key = tuple(stored_column(column) for column in entry.get("primary_key", ()))
    columns = {
        stored_column(column): (_type(kind), _description(entry["table"], column, readme))
        for column, kind in entry.get("columns", {}).items()
    }
    added = {column: what for column, what in _ADDED.items() if not key or column != _ID}
    return StoredTable(
        stored_table(entry["table"]),
        entry["table"],
        entry.get("schema") or "",
        key or (_ID,),
        {**columns, **added},
    )


def _type(kind: Any) -> str:
    return kind if isinstance(kind, str) else f"DECIMAL({kind['precision']},{kind['scale']})"


def _description(table: str, column: str, readme: str) -> str:
    """What a connector's README says of a column, in its table of columns or in a sentence that
    begins with its name; else that it is as the source sends it."""
    section = readme.partition("## Tables created")[2].partition("\n## ")[0]
    own = section.partition(f"**{table}**")[2].partition("\n\n**")[0]
    if row := re.search(rf"^\| `{re.escape(column)}` \| \w+ \| (.*) \|$", own, re.M):
        return row[1]
    if said := re.search(rf"(?:^|\. )(`{re.escape(column)}` is [^.]*)\.(?:\s|$)", section, re.M):
        return said[1]
    return _ADDITIONAL if column == "additional_fields" else "As the source sends it"


def _printed(table: StoredTable) -> Printed:
    where = f"{table.schema}." if table.schema else ""
    printed = Printed(title=f"{where}{table.name}", title_justify="left", title_style="bold")
    for header in ("column", "type", "key"):
        printed.add_column(header, no_wrap=True)
    for column, (kind, _) in table.columns.items():
        printed.add_row(column, kind, "key" if column in table.key else "")
    return printed


# dbt


def dbt_sources(name: str, tables: list[StoredTable]) -> str:
    """The tables as sources of dbt (a properties file), with tests of their keys. Every text is
    written as JSON, which YAML includes."""
    lines = [
        f"# The tables of {name}. Replace `schema` by the name of the connection.",
        "version: 2",
    ]
    lines.append("sources:")
    for schema in dict.fromkeys(table.schema for table in tables):
        label = f"{name}_{schema}".lower() if schema else name
        lines += [f"  - name: {_text(label)}", f"    schema: {_text(label)}", "    tables:"]
        for table in tables:
            if table.schema == schema:
                lines += _dbt_table(table, name)
    return "\n".join(lines) + "\n"


def _dbt_table(table: StoredTable, name: str) -> Iterator[str]:
    yield f"      - name: {_text(table.name)}"
    yield f"        description: {_text(f'{table.source}, synced by {name}')}"
    if len(table.key) > 1:
        yield "        data_tests:"
        yield "          - unique:"
        yield f"              column_name: {_text(_joined(table.key))}"
    yield "        columns:"
    for column, (kind, description) in table.columns.items():
        yield f"          - name: {_text(column)}"
        yield f"            description: {_text(f'{description} ({kind})')}"
        if column in table.key:
            tests = "not_null" if len(table.key) > 1 else "not_null, unique"
            yield f"            data_tests: [{tests}]"


def _joined(columns: tuple[str, ...]) -> str:
    """An SQL expression that is unique where the columns together are. dbt renders no macro here,
    so it has to be one that the warehouses have in common: Redshift takes no other types than text
    in it, the others do."""
    first, *others = columns
    expression = first
    for column in others:
        expression = f"concat(concat({expression}, '|'), {column})"
    return expression


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


# JSON Schema


def json_schema(settings: Mapping[str, Setting], name: str) -> dict[str, Any]:
    """The JSON Schema of a configuration.json: an object of texts. Blank and placeholder texts
    are no values of required keys. What a number or a list must be stands in the description,
    since validation takes it in more forms than a pattern could tell."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Configuration of {name}",
        "type": "object",
        "properties": {key: _property(setting) for key, setting in settings.items()},
        "required": [key for key, setting in settings.items() if setting.default is None],
        "additionalProperties": {"type": "string"},
    }


def _property(setting: Setting) -> dict[str, Any]:
    expected = setting.kind.expected
    found: dict[str, Any] = {
        "type": "string",
        "title": setting.label,
        "description": f"{setting.description} ({expected})",
    }
    if setting.default is None:
        found["pattern"] = r"\S"
        found["not"] = {"pattern": r"^\s*<[A-Z][A-Z0-9_]*>\s*$"}
    elif setting.default:
        found["default"] = setting.default
    if setting.kind.names:
        found["examples"] = list(setting.kind.names)
    if setting.secret:
        found["writeOnly"] = True
    if setting.unused:
        found["deprecated"] = True
    return found

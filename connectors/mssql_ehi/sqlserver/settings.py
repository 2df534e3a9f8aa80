"""The keys of configuration.json: their types, their defaults, and which ones go together."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared import fields
from shared.settings import FLAG, URL, Kind, declared, integer, setting

from . import naming, tds_patches
from .addresses import ServerName, parse_server


def _parse_certificates(text: str) -> str:
    tds_patches.parse_certificates(text)
    return text


Parts = tuple[str, ...]  # of a name, which points separate
# A part is quoted as in a statement, or it reaches to the next point or comma.
_PART = re.compile(r'\s*(?:\[((?:[^\]]|\]\])+)\]|"((?:[^"]|"")+)")\s*(?=[.,]|$)|([^.,]*)')


def _parse_names(text: str) -> tuple[Parts, ...]:
    """The names in a comma-separated list, by their parts and without their quotes."""
    if not text.isprintable():
        raise ValueError
    found: list[Parts] = []
    parts: list[str] = []
    place = 0
    while match := _PART.match(text, place):
        place = match.end() + 1
        is_last = text[match.end() : place] != "."
        parts.append(_part(match, is_first=not parts, is_last=is_last))
        if is_last:
            found.append(tuple(parts))
            parts = []
        if match.end() == len(text):
            break
    return tuple(name for name in found if any(name))


def _part(match: "re.Match[str]", *, is_first: bool, is_last: bool) -> str:
    """A part without its quotes or, if it has none, without the spaces around the name."""
    bracketed, quoted, plain = match.groups()
    if bracketed:
        return bracketed.replace("]]", "]")
    if quoted:
        return quoted.replace('""', '"')
    begun = plain.lstrip() if is_first else plain
    return begun.rstrip() if is_last else begun


def _parse_columns(text: str) -> tuple[str, ...]:
    return tuple(".".join(parts) for parts in _parse_names(text))


DeclaredKey = tuple[Parts, tuple[str, ...]]  # of a table or view, and the columns of its key


def _parse_keys(text: str) -> tuple[DeclaredKey, ...]:
    """`dbo.vLabs: OrderID, Line; dbo.vPatients: PatientID`."""
    found = []
    for entry in filter(str.strip, text.split(";")):
        name, _, columns = entry.partition(":")
        [parts], key = _parse_names(name), _parse_columns(columns)
        if not key:
            raise ValueError
        found.append((parts, key))
    return tuple(found)


def table_patterns(names_of: Sequence[Parts] | None, database: str) -> list[str]:
    """The names as patterns of ``schema.table`` or ``table``, without the name of the database
    that may stand before them, as in ``db.dbo.T`` and ``db..T``."""
    return [naming.pattern(_within(parts, database, 2)) for parts in names_of or ()]


def declared_keys(keys: Sequence[DeclaredKey] | None, database: str) -> dict[str, tuple[str, ...]]:
    """The columns of the keys, by the patterns of their tables."""
    return {table_patterns([name], database)[0]: columns for name, columns in keys or ()}


def column_patterns(names_of: Sequence[Parts] | None, database: str) -> list[str]:
    """The same of ``schema.table.column``, ``table.column`` or ``column``."""
    return [naming.pattern(_within(parts, database, 3)) for parts in names_of or ()]


def _within(parts: Parts, database: str, depth: int) -> Parts:
    """The last ``depth`` parts of a name, if the database's stands before them; else all."""
    if len(parts) <= depth or parts[-depth - 1].casefold() != database.casefold():
        return parts
    schema, *rest = parts[-depth:]
    return (schema or "dbo", *rest)


# A number of hours, of all tables or, behind a name and "=", of those that it names.
_HOURS = re.compile(
    r'\s*(?:((?:\[(?:[^\]]|\]\])+\]|"(?:[^"]|"")+"|[^,="\[\]])+)=)?\s*(\d{1,5})\s*(?:,|$)',
    re.ASCII,
)
Hours = tuple[Parts, int]  # of a table, () for all of them


def _parse_hours(text: str) -> tuple[Hours, ...]:
    """The names in a comma-separated list with their hours; without a name: of all tables."""
    found: list[Hours] = []
    place = 0
    while place < len(text):
        match = _HOURS.match(text, place)
        if not match:
            raise ValueError
        place = match.end()
        name, hours = match.groups()
        names = _parse_names(name) if name else ((),)
        if len(names) != 1 or (not name and () in dict(found)):
            raise ValueError
        found.append((names[0], int(hours)))
    return tuple(found)


def _parse_domain(text: str) -> str:
    if not re.fullmatch(r"[\w.$-]{1,255}", text):
        raise ValueError
    return text


def _parse_tenant(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,253}", text, re.ASCII):
        raise ValueError
    return text


SERVER = Kind(
    "a host name or an IP address, with a port (host,1433) or an instance (host\\name) or neither",
    parse_server,
)
CERTIFICATES = Kind("one or more certificates in PEM form", _parse_certificates)
DOMAIN = Kind("the name of a Windows domain, as CORP or corp.example", _parse_domain)
TENANT = Kind("the id or a domain of a tenant", _parse_tenant)
NAMES = Kind("a comma-separated list", _parse_names)
KEYS = Kind("a list as schema.view: column, column; schema.table: column", _parse_keys)
COLUMNS = Kind("a comma-separated list", _parse_columns)
HOURS = Kind(
    "a number of hours up to 99999, or a comma-separated list of schema.table=hours", _parse_hours
)

# Caboodle has _LastUpdatedInstant, Clarity UPDATE_DATE.
_CHANGE_COLUMNS = (
    "ModifiedDate, _LastUpdatedInstant, UPDATE_DATE, LastModifiedDate, LastModified, "
    "LastUpdatedDate, LastUpdated, LastUpdateDate, UpdatedAt, updated_at, UpdatedOn, UpdatedDate, "
    "UpdateDate, ModifiedAt, modified_at, ModifiedOn, modified_on, DateModified, DateUpdated"
)


@dataclass(frozen=True, repr=False)
class Settings:
    """The keys of configuration.json."""

    mssql_server: ServerName = setting(  # noqa: RUF009  # it makes a field
        "Server", "The server, by its name or address", SERVER
    )
    mssql_database: str = setting("Database", "Name of the database to read", exact=True)
    mssql_user: str | None = setting(
        "User", "Login of SQL Server, or Windows account of mssql_domain", exact=True, default=""
    )
    mssql_password: str | None = setting(
        "Password", "Password of that user", exact=True, secret=True, default=""
    )
    mssql_domain: str | None = setting(
        "Domain", "Windows domain of that user; empty: a login of SQL Server", DOMAIN, default=""
    )
    mssql_port: int | None = setting(
        "Port",
        "TCP port; empty: that in mssql_server, else that of its instance, else 1433",
        integer(1, 65535),
        default="",
    )
    mssql_encrypt: bool = setting("Encrypt", "Encrypt the whole session", FLAG, default="true")
    mssql_ca_certificate: str | None = setting(
        "CA certificate",
        "Certificates of trusted authorities; empty: the system's",
        CERTIFICATES,
        default="",
    )
    mssql_trust_server_certificate: bool = setting(
        "Trust any certificate",
        "Encrypt, but do not verify the certificate",
        FLAG,
        default="false",
    )
    mssql_tenant_id: str | None = setting(
        "Tenant", "Directory of a service principal of Azure AD", TENANT, default=""
    )
    mssql_client_id: str | None = setting(
        "Client", "Application id of the service principal", default=""
    )
    mssql_client_secret: str | None = setting(
        "Client secret", "Secret of the service principal", secret=True, default=""
    )
    mssql_authority_url: str = setting(
        "Authority",
        "Address of the token endpoint, without the tenant",
        URL,
        default="https://login.microsoftonline.com",
    )
    read_only_intent: bool = setting(
        "Read-only intent", "Connect to a readable secondary replica", FLAG, default="false"
    )
    tables: tuple[Parts, ...] | None = setting(
        "Tables", "schema.table to sync, * allowed; empty: all", NAMES, default=""
    )
    exclude_tables: tuple[Parts, ...] | None = setting(
        "Excluded tables", "schema.table not to sync, * allowed", NAMES, default=""
    )
    views: tuple[Parts, ...] | None = setting(
        "Views", "schema.view to sync, * allowed; empty: none", NAMES, default=""
    )
    keys: tuple[DeclaredKey, ...] | None = setting(
        "Keys",
        "Keys of views, and of tables that have none, as schema.view: column, column; ...",
        KEYS,
        default="",
    )
    exclude_columns: tuple[Parts, ...] | None = setting(
        "Excluded columns",
        "schema.table.column not to read, * allowed: what must not leave the server, or what "
        "mssql_user may not read",
        NAMES,
        default="",
    )
    max_tables: int = setting(
        "Maximum of tables",
        "How many tables to sync at most; 0: all",
        integer(0, 1_000_000),
        default="10",
    )
    destination_schemas: bool = setting(
        "Destination schemas",
        "Store each table in a schema named like its own, in place of one schema for all",
        FLAG,
        default="false",
    )
    incremental_column: tuple[str, ...] = setting(
        "Incremental column",
        "Columns that tell when a row changed, the preferred one first",
        COLUMNS,
        default=_CHANGE_COLUMNS,
    )
    deleted_column: tuple[str, ...] | None = setting(
        "Deleted column",
        "Columns that are true in rows that count as deleted, the preferred one first",
        COLUMNS,
        default="",
    )
    delete_sweep_hours: int = setting(
        "Sweep for deletes",
        "Hours between two sweeps for deleted rows, where the key is a whole number; 0: none",
        integer(0, 99_999),
        default="24",
    )
    full_refresh_hours: tuple[Hours, ...] = setting(
        "Full refresh",
        "Hours between two full refreshes of tables whose deletes nothing else tells, or a list "
        "of schema.table=hours; 0: none",
        HOURS,
        default="0",
    )
    lookback_seconds: int = setting(
        "Look-back",
        "How many seconds before the last change are read again",
        integer(0, 31_536_000),
        default="3600",
    )
    slice_rows: int = setting(
        "Rows of a slice",
        "How many rows one statement reads at most, where an index has their order",
        integer(1, 100_000_000),
        default="500000",
    )
    query_timeout_seconds: int = setting(
        "Query timeout", "Read timeout of a query in seconds", integer(1, 86_400), default="300"
    )
    login_timeout_seconds: int = setting(
        "Login timeout",
        "Seconds without a response that end a login; as a whole it may take twice as many",
        integer(1, 300),
        default="15",
    )
    max_value_mebibytes: int = setting(
        "Largest value",
        "How large a value may be, in MiB; the row of a larger one is skipped",
        integer(4, 2048),  # of smaller ones whole rows are decoded at once
        default="256",
    )
    parallel_tables: int = setting(
        "Parallel tables", "How many tables to read at once", integer(1, 4), default="1"
    )
    retry_attempts: int = fields.retries()


_LOGIN = ("mssql_user", "mssql_password")
_PRINCIPAL = ("mssql_tenant_id", "mssql_client_id", "mssql_client_secret")


def check_login(values: Mapping[str, Any]) -> list[str]:
    """A line for each setting of the login that is missing or contradicts another. Either a user
    and a password (of SQL Server or a Windows domain) or a service principal must be complete."""
    principal = any(values.get(key) for key in _PRINCIPAL)
    server, port = values.get("mssql_server"), values.get("mssql_port")
    known = declared(Settings)
    lines = [
        f"{key} is missing: {known[key].description}"
        for key in (_PRINCIPAL if principal else _LOGIN)
        if key in values and not values[key]
    ]
    if server and port and server.port not in (None, port):
        lines.append("mssql_port must be the port in mssql_server, or empty")
    if principal and any(values.get(key) for key in _LOGIN):
        lines.append("mssql_user and mssql_password must be empty beside a service principal")
    if principal and values.get("mssql_domain"):
        lines.append("mssql_domain must be empty beside a service principal")
    if "\\" in (values.get("mssql_user") or ""):
        lines.append("mssql_user must be without a domain: set mssql_domain to it")
    if principal and not values.get("mssql_encrypt", True):
        lines.append('mssql_encrypt must be "true" for a service principal: its token is a secret')
    return lines

"""Example: what it is.

Replace: what the source is, and the address of the reference that says what it sends.
"""

import gc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from fivetran_connector_sdk import ConfigurationForm, Connector

from shared import fields, times
from shared.errors import SourceError, redact_errors
from shared.form import setup_form
from shared.listing import Listing
from shared.local import debug
from shared.pages import LinkedPages, NumberedPages, Page, by_fields
from shared.report import SyncReport
from shared.rest import Response, RestClient, Retry
from shared.rows import Column, Table, decimal
from shared.settings import TOKEN, read, setting
from shared.state import State, window


# Replace: the keys. configuration.json and the README's table have them in the same order.
@dataclass(frozen=True, repr=False)
class Settings:
    """The keys of configuration.json."""

    api_key: str = setting("API key", "From your account at Example", TOKEN, secret=True)
    base_url: str = fields.base_url("https://api.example.invalid/v1")
    page_size: int = fields.page_size(1000, "100")
    reconcile_hours: int = fields.full_refresh_hours("Hours between two full refreshes")
    request_timeout_seconds: int = fields.request_timeout("30")
    retry_attempts: int = fields.retries()


# Replace: the tables, with the type of every column; other fields go to `additional_fields`.
TABLES = (
    # For each table
    Table(
        "items",
        ("id",),
        {
            "id": Column(required=True),
            "name": Column(),
            "price": Column(decimal(19, 4)),
            "updated_at": Column("UTC_DATETIME"),
        },
    ),
    # End
)


def schema(configuration: Mapping[str, str]) -> list[dict[str, Any]]:  # noqa: ARG001
    """The tables, in the form that the SDK takes; they are the same for all configurations."""
    return [table.schema() for table in TABLES]


def validate_configuration(configuration: Mapping[str, str]) -> Settings:
    """The settings. Raises ValueError with a line for each key that is wrong."""
    return read(Settings, configuration)


@redact_errors
def update(configuration: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Syncs each table: what changed since its cursor or, when that is due, everything."""
    gc.freeze()  # what is imported stays: the many collections need not look through it
    settings = validate_configuration(configuration)
    saved = State(state, tuple(table.name for table in TABLES))
    client = _connect(settings)
    with SyncReport() as report:
        for table in TABLES:
            with report.attempt(table.name):
                to_read = window(saved.table(table.name), settings.reconcile_hours)
                Listing(
                    table,
                    to_read,
                    client,
                    pages=partial(get_records, client, settings.page_size, table, to_read.since),
                    # Only with DELETES=feed
                    deletions=partial(get_deletes, client, settings.page_size, table),
                    # End
                    to_rows=table.rows,
                    changed_at=lambda row: row["updated_at"],
                ).sync(saved, report)


def configuration_form() -> ConfigurationForm:
    """The setup form: a field for each key, and a test that calls Example."""
    return setup_form(Settings, validate_configuration, {"Read each table": read_each_table})


def read_each_table(settings: Settings) -> None:
    """A setup test: the first record of each table. Raises SourceError."""
    client = _connect(settings)
    for table in TABLES:
        next(get_records(client, 1, table, since=None))


def _connect(settings: Settings) -> RestClient:
    return RestClient(
        settings.base_url,
        settings.request_timeout_seconds,
        Retry(settings.retry_attempts),
        headers={"Authorization": f"Bearer {settings.api_key}"},
        explain=_explain,
    )


def _explain(response: Response) -> str:
    """What to do about a response that no retry will change."""
    return {
        401: "Example refuses api_key: create a new key in your account",
        403: "The key may not read this: check its rights",
    }.get(response.status, "Check that base_url is the API of Example")


def get_records(
    client: RestClient, size: int, table: Table, since: datetime | None
) -> Iterator[Page]:
    """Pages of the records that changed at ``since`` or later (None: of all). Raises
    SourceError."""
    query = {"updated_since": times.to_text(since)} if since else {}
    return _get_pages(client, f"/{table.name}", {"page_size": size, **query}, table.key)


# Only with DELETES=feed
def get_deletes(client: RestClient, size: int, table: Table, since: datetime) -> Iterator[Page]:
    """Pages of the records deleted at ``since`` or later, by their ids. Raises SourceError.

    Replace, or leave out with ``deletions`` if the source lists no deletes: then they arrive only
    with full refreshes.
    """
    query = {"page_size": size, "deleted_since": times.to_text(since)}
    return _get_pages(client, f"/deleted-{table.name}", query, table.key)


# End
def _get_pages(
    client: RestClient, path: str, query: Mapping[str, Any], key: tuple[str, ...]
) -> Iterator[Page]:
    """The pages of a list.

    Replace: how a page is requested, and what proves that it is whole and which is the last. A
    response that is not understood is an error: taken for the end of the list, it would delete the
    rows of later pages.
    """
    where = f"{client.base_url}{path}"

    # Only with PAGES=number
    def numbered(number: int) -> Page:
        match client.get(path, {**query, "page": number}):
            case {"data": list(found), "page": int(at), "pages": int(pages), "total": int(total)}:
                return Page(found, number, pages, total, current=at)
        raise SourceError(f"{where}: page {number} is not understood")

    return iter(NumberedPages(client, where, numbered, query["page_size"], key))

    # End
    # Only with PAGES=token
    def named(token: str | None) -> tuple[Page, str | None]:
        """The page of a token (None: the first), and the next page's token (None: the last)."""
        match client.get(path, {**query, "page_token": token} if token else query):
            case {"data": list(found), "next_token": None | str() as following}:
                return Page(found), following
        raise SourceError(f"{where}: a page is not understood")

    return iter(LinkedPages(where, named, by_fields(key), size=query["page_size"]))

    # End
    # Only with PAGES=link
    def linked(link: str | None) -> tuple[Page, str | None]:
        """The page of a link (None: the first), and the next page's link (None: the last)."""
        match client.get(link) if link else client.get(path, query):
            case {"data": list(found), "next": None | str() as following}:
                return Page(found), following
        raise SourceError(f"{where}: a page is not understood")

    return iter(LinkedPages(where, linked, by_fields(key), size=query["page_size"]))


# End
connector = Connector(update=update, schema=schema, configuration_form=configuration_form)

if __name__ == "__main__":
    debug(connector, __file__)

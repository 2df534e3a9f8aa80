"""Example: its items.

Replace: what the source is, and the address of the reference that says what it sends.
"""

import gc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from fivetran_connector_sdk import ConfigurationForm, Connector

from shared import fields, times
from shared.errors import SourceError, redact_errors
from shared.form import setup_form
from shared.listing import Listing
from shared.local import local_configuration
from shared.pages import NumberedPages, Page
from shared.rest import Response, RestClient, Retry
from shared.rows import Column, SkippedRecords, Table, decimal
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
ITEMS = Table(
    "items",
    ("id",),
    {
        "id": Column(required=True),
        "name": Column(),
        "price": Column(decimal(19, 4)),
        "updated_at": Column("UTC_DATETIME"),
    },
)


def schema(configuration: Mapping[str, str]) -> list[dict[str, Any]]:  # noqa: ARG001
    """The tables, in the form that the SDK takes; they are the same for all configurations."""
    return [ITEMS.schema()]


def validate_configuration(configuration: Mapping[str, str]) -> Settings:
    """The settings. Raises ValueError with a line for each key that is wrong."""
    return read(Settings, configuration)


@redact_errors
def update(configuration: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Syncs the items: those that changed since the cursor or, when it is due, all of them."""
    gc.freeze()  # what is imported stays: the many collections need not look through it
    settings = validate_configuration(configuration)
    saved, skipped, client = State(state, (ITEMS.name,)), SkippedRecords(), _connect(settings)
    to_read = window(saved.table(ITEMS.name), settings.reconcile_hours)
    try:
        Listing(
            ITEMS,
            to_read,
            client,
            pages=partial(get_items, client, settings.page_size, to_read.since),
            deletions=partial(get_deleted_items, client, settings.page_size),
            to_rows=ITEMS.rows,
            changed_at=lambda row: row["updated_at"],
        ).sync(saved, skipped)
    finally:
        skipped.report()


def configuration_form() -> ConfigurationForm:
    """The setup form: a field for each key, and a test that calls Example."""
    return setup_form(Settings, validate_configuration, {"Read one item": read_an_item})


def read_an_item(settings: Settings) -> None:
    """A setup test: the first item. Raises SourceError."""
    next(get_items(_connect(settings), size=1, since=None))


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


def get_items(client: RestClient, size: int, since: datetime | None) -> Iterator[Page]:
    """Pages of the items that changed at ``since`` or later (None: of all). Raises SourceError."""
    query = {"updated_since": times.to_text(since)} if since else {}
    return _get_pages(client, "/items", size, query)


def get_deleted_items(client: RestClient, size: int, since: datetime) -> Iterator[Page]:
    """Pages of the items deleted at ``since`` or later, by their ids. Raises SourceError.

    Replace, or leave out with ``deletions`` if the source lists no deletes: then they arrive only
    with full refreshes.
    """
    query = {"deleted_since": times.to_text(since)}
    return _get_pages(client, "/deleted-items", size, query)


def _get_pages(
    client: RestClient, path: str, size: int, query: Mapping[str, str]
) -> Iterator[Page]:
    fetch = partial(_get_page, client, path, {"page_size": size, **query})
    return iter(NumberedPages(client, f"{client.base_url}{path}", fetch, size, ITEMS.key))


def _get_page(client: RestClient, path: str, query: Mapping[str, Any], number: int) -> Page:
    """Page ``number``, from 1. Where pages are linked, or named by a token, see LinkedPages.

    Replace: how a page is requested, and what proves that it is whole and which is the last. A
    response that is not understood is an error: taken for the end of the list, it would delete the
    rows of later pages.
    """
    match client.get(path, {**query, "page": number}):
        case {"items": list(items), "page": int(at), "pages": int(pages), "total": int(total)}:
            return Page(items, number, pages, total, current=at)
    raise SourceError(f"{client.base_url}{path}: page {number} is not understood")


connector = Connector(update=update, schema=schema, configuration_form=configuration_form)

if __name__ == "__main__":
    # From configuration.local.json or, without it, configuration.json.
    here = Path(__file__).resolve().parent
    connector.debug(str(here), configuration=local_configuration(here))

"""The tables that tell what a sync did, and the same in the log."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any

from fivetran_connector_sdk import Logging, Operations as op

from shared.report import aligned

from . import naming
from .read_progress import MANY_TABLES
from .table_sync import TableSync

_SLOWEST = 20  # tables that the log shows, of many
TABLES = [
    {
        "table": naming.SYNC_VALIDATION,
        "primary_key": ["sync_timestamp"],
        "columns": {
            "sync_timestamp": "UTC_DATETIME",
            "total_tables": "INT",
            "total_records": "LONG",
            "tables_processed": "STRING",
            "failed_tables": "STRING",
            "skipped_records": "LONG",
        },
    },
    {
        "table": naming.SYNC_VALIDATION_TABLES,
        "primary_key": ["sync_timestamp", "table_name"],
        "columns": {
            "sync_timestamp": "UTC_DATETIME",
            "table_name": "STRING",
            "completed": "BOOLEAN",
            "plan": "STRING",
            "mode": "STRING",
            "rows_read": "LONG",
            "rows_sent": "LONG",
            "deletes_sent": "LONG",
            "rows_skipped": "LONG",
            "seconds": "DOUBLE",
            "rows_per_second": "DOUBLE",
            "source_rows": "LONG",
        },
    },
]


@dataclass(frozen=True)
class Outcome:
    """How the sync of a table ended. ``rows``: how many were read; ``error``: why it failed."""

    sync: TableSync
    rows: int = 0
    error: str = ""

    @property
    def label(self) -> str:
        return self.sync.plan.table.label


def report(outcomes: Sequence[Outcome], skipped: dict[str, int], moment: datetime) -> None:
    """Stores the rows of this sync in the tables, and logs the same. ``skipped``: how many rows
    were skipped, by table."""
    done = [outcome for outcome in outcomes if not outcome.error]
    op.upsert(
        naming.SYNC_VALIDATION,
        {
            "sync_timestamp": moment,
            "total_tables": len(done),
            "total_records": sum(outcome.rows for outcome in done),
            "tables_processed": ", ".join(outcome.label for outcome in done),
            "failed_tables": ", ".join(o.label for o in outcomes if o.error),
            "skipped_records": sum(skipped.values()),
        },
    )
    rows = [_row(outcome, skipped.get(outcome.label, 0), moment) for outcome in outcomes]
    for row in rows:
        op.upsert(naming.SYNC_VALIDATION_TABLES, row)
    if len(rows) <= MANY_TABLES:
        Logging.info(f"Tables of this sync:\n{_text(rows)}")
    else:
        slowest = sorted(rows, key=itemgetter("seconds"), reverse=True)[:_SLOWEST]
        Logging.info(f"The slowest {_SLOWEST} of {len(rows)} tables:\n{_text(slowest)}")
        Logging.debug(f"Tables of this sync:\n{_text(rows)}")


def _row(outcome: Outcome, skipped: int, moment: datetime) -> dict[str, Any]:
    sync = outcome.sync
    return {
        "sync_timestamp": moment,
        "table_name": outcome.label,
        "completed": not outcome.error,
        "plan": sync.description,
        "mode": sync.mode,
        "rows_read": outcome.rows,
        "rows_sent": sync.rows_sent,
        "deletes_sent": sync.deletes_sent,
        "rows_skipped": skipped,
        "seconds": round(sync.seconds, 3),
        "rows_per_second": round(outcome.rows / max(sync.seconds, 0.001), 1),
        "source_rows": sync.plan.table.estimate,
    }


def _text(rows: Sequence[dict[str, Any]]) -> str:
    columns = [column for column in TABLES[1]["columns"] if column != "sync_timestamp"]
    return aligned([{column: row[column] for column in columns} for row in rows])

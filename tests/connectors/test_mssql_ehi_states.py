"""mssql_ehi: the state of a table, and states that earlier versions of the connector wrote.

tests/fixtures/states/mssql_ehi/ has a sample of each form, as that version wrote it for the tables
of ``create_tables`` at NOW: `unfinished` after a first load that broke off in three tables,
`incremental` after one of an incremental read, `emptied` when a small table was found empty.

1   the first version: column fingerprints of 4 digits, in every entry; no Change Tracking
2   Change Tracking and rowversions; fingerprints only beside a cursor, none with `version`
3   `key`, `offset`, `rejected`; fingerprints of 8 digits, and in `read`, too
4   the plan stands in `order`
5   `types` and `id`
6   `nulls`
"""

import json
import random
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest

from shared.errors import ConnectorError
from tests.connectors.mssql import NOW, Columns, configuration
from tests.sandbox.fivetran import Project, load
from tests.sandbox.mssql import MssqlSandbox
from tests.soak.broken_states import broken
from tests.width import wide
from tools.paths import ROOT

pytestmark = pytest.mark.usefixtures("slept", "small_steps")
load("mssql_ehi")  # makes its modules importable
TableState = import_module("sqlserver.table_state").TableState
STATES = ROOT / "tests" / "fixtures" / "states" / "mssql_ehi"


def create_tables(server: MssqlSandbox) -> None:
    """A table for each way of reading one, with 100 rows."""
    start = NOW.replace(tzinfo=None) - timedelta(hours=1)
    moments = [(i, start + timedelta(seconds=i)) for i in range(100)]
    texts = [(i, f"value {i}") for i in range(100)]
    plain: Columns = [("id", "int", False), ("v", "varchar(40)")]
    timed: Columns = [("id", "int", False), ("ModifiedDate", "datetime2(7)")]
    server.create_table("dbo", "timed", timed, key=["id"], rows=moments)
    server.create_table("dbo", "plain", plain, key=["id"], rows=texts)
    server.create_table("dbo", "keyless", plain, rows=texts)
    versioned: Columns = [*plain, ("rv", "rowversion")]
    server.create_table("dbo", "versioned", versioned, key=["id"], rows=texts)
    server.create_table("dbo", "tracked", plain, key=["id"], rows=texts)
    server.info.tracking = True
    server.execute("ALTER TABLE dbo.tracked ENABLE CHANGE_TRACKING")


def change_tables(server: MssqlSandbox, case: str) -> None:
    if case == "incremental":
        server.execute("UPDATE dbo.versioned SET v = 'new'")
        server.execute("UPDATE dbo.tracked SET v = 'new'")
        server.execute("UPDATE dbo.timed SET ModifiedDate = '2026-11-20T11:59:00'")
    if case == "emptied":
        server.execute("DELETE FROM dbo.plain")
        server.execute("DELETE FROM dbo.keyless")


def saved(name: str) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((STATES / f"{name}.json").read_text())
    return state


# By the name of a state, how each of these is read, and how many rows are.
TABLES = ("timed", "plain", "keyless", "versioned", "tracked")
RESTARTED, RESUMED, NEW = ("first", 100), ("first", 40), ("first", 100)
REPLACED, EMPTIED = ("replacement", 100), ("replacement", 0)
CHANGED, UNCHANGED, RESUMED_CHANGED = [("incremental", rows) for rows in (100, 0, 40)]
TRACKED, RESUMED_TRACKED = ("changes", 0), ("changes", 40)
UNFINISHED = (RESUMED, RESUMED, REPLACED, NEW, RESUMED)
INCREMENTAL = (RESUMED_CHANGED, REPLACED, REPLACED, RESUMED_CHANGED, RESUMED_TRACKED)
EXPECTED = {
    "1-unfinished": (RESTARTED, RESTARTED, REPLACED, REPLACED, RESTARTED),
    "2-unfinished": (RESTARTED, RESTARTED, REPLACED, UNCHANGED, RESTARTED),
    "3-unfinished": (RESUMED, RESUMED, REPLACED, UNCHANGED, RESUMED),
    "4-unfinished": UNFINISHED,
    "5-unfinished": UNFINISHED,
    "6-unfinished": UNFINISHED,
    "1-incremental": (CHANGED, REPLACED, REPLACED, REPLACED, REPLACED),
    "2-incremental": (CHANGED, REPLACED, REPLACED, CHANGED, TRACKED),
    "3-incremental": (RESUMED_CHANGED, REPLACED, REPLACED, RESUMED_CHANGED, TRACKED),
    "4-incremental": INCREMENTAL,
    "5-incremental": INCREMENTAL,
    "6-incremental": INCREMENTAL,
    "1-emptied": (CHANGED, EMPTIED, EMPTIED, REPLACED, REPLACED),
    "6-emptied": (CHANGED, EMPTIED, EMPTIED, UNCHANGED, TRACKED),
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_state_of_an_earlier_version_goes_on(
    project: Project, server: MssqlSandbox, name: str
) -> None:
    """A read resumes where the form of its position is the same; no cursor is lost."""
    create_tables(server)
    change_tables(server, name.split("-")[1])
    result = project.sync(configuration(server), saved(name))
    assert result.code == 0, result.output
    report = {row["table_name"]: row for row in project.rows("sync_validation_tables")}
    found = [(report[f"dbo.{t}"]["mode"], report[f"dbo.{t}"]["rows_read"]) for t in TABLES]
    assert dict(zip(TABLES, found, strict=True)) == dict(zip(TABLES, EXPECTED[name], strict=True))


def test_every_sample_is_tested() -> None:
    """None is forgotten."""
    assert {path.stem for path in STATES.glob("*.json")} == EXPECTED.keys()


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_entry_of_an_earlier_version_is_saved_again(name: str) -> None:
    """In the form of this version."""
    for label, entry in saved(name)["tables"].items():
        before = TableState.from_json(entry, label)
        assert before.others == {}
        assert TableState.from_json(before.to_json(label), label) == before


@pytest.mark.parametrize("number", [0, *wide(*range(1, 20))])
def test_a_broken_state_of_an_earlier_version_costs_no_row(
    project: Project, server: MssqlSandbox, number: int
) -> None:
    """It is refused by a StateError, or read as far as it is understood."""
    draw = random.Random(number)
    create_tables(server)
    assert project.sync(configuration(server)).code == 0
    for _ in range(2):
        path = draw.choice(sorted(STATES.glob("*.json")))
        server.execute("UPDATE dbo.timed SET ModifiedDate = SYSDATETIME() WHERE id = 7")
        result = project.sync(configuration(server), broken(path.read_text(), draw))
        refused = "The saved state " in result.output and "or re-sync the conn" in result.output
        assert result.code == 0 or refused, result.output
    assert project.sync(configuration(server)).code == 0
    for table in TABLES:
        [(count,)] = server.execute(f"SELECT COUNT(*) AS n FROM dbo.{table}")  # noqa: S608
        assert len(project.rows(table)) == count, table


@pytest.mark.parametrize(
    ("label", "destination"),
    [("dbo.t", "t"), ("dbo.t", "t_2"), ("a.dbo", "dbo"), ("dbo.[a.b]", "a.b")],
)
@pytest.mark.parametrize(
    ("key", "kinds"),
    [
        ([], []),
        (["id"], ["whole"]),
        (["a:b", ":"], ["text", "date"]),
        (["a"], ["time"]),
        (["a", "b"], ["uniqueidentifier", "bytes"]),
    ],
)
def test_an_entry_is_read_as_it_was_saved(
    label: str, destination: str, key: list[str], kinds: list[str]
) -> None:
    """Whatever the names and the types of a key."""
    before = TableState(destination=destination, key=key, key_types=kinds, rows=0)
    assert TableState.from_json(before.to_json(label), label) == before


def test_the_entry_of_a_table_at_rest_is_small(project: Project, server: MssqlSandbox) -> None:
    """At most 150 bytes, whatever its plan and the number of its columns."""
    create_tables(server)
    columns: Columns = [("EncounterDimensionKey", "int", False), ("ModifiedDate", "datetime2(7)")]
    columns += [(f"AnyColumn{number}", "varchar(40)") for number in range(300)]
    moment = NOW.replace(tzinfo=None) - timedelta(hours=5)
    rows = [(number, moment, *[None] * 300) for number in range(200)]
    key = ["EncounterDimensionKey"]
    server.create_table("dbo", "EncounterFact", columns, key=key, rows=rows)
    for _ in range(2):
        assert project.sync(configuration(server)).code == 0
        sizes = {label: len(json.dumps(entry)) for label, entry in project.state["tables"].items()}
        assert max(sizes.values()) <= 150, sizes
    label = "dbo.EncounterFact"
    assert TableState.from_json(project.state["tables"][label], label).cursor.window


def test_what_other_versions_save_is_kept() -> None:
    """Of a read with keys that this version does not know nobody can tell where it stands."""
    entry = {"as": "u", "names": {}, "refused": True, "mixed": True, "k": [], "later": [1]}
    assert TableState.from_json(entry, "dbo.t").to_json("dbo.t") == entry
    read = {"mode": "first", "clock": "", "after": None}
    assert TableState.from_json({"read": read}, "dbo.t").read is not None
    assert TableState.from_json({"read": {**read, "later": 1}}, "dbo.t").to_json("dbo.t") == {}


READ = {"mode": "changes", "clock": "2", "start": "1", "order": ["x"], "after": "gA", "sent": 3}


@pytest.mark.parametrize(
    "changes",
    [
        *({key: None} for key in ("mode", "clock", "start")),
        {"mode": "other"},
        {"start": 5},
        {"clock": "soon"},
        {"clock": "9" * 5_000},
        {"offset": 2**62},
        {"order": "x"},
        {"greatest": "2026-02-30"},
        {"sent": True},
    ],
)
def test_an_unfinished_read_that_is_not_understood_is_none(changes: dict[str, Any]) -> None:
    """It is read from its beginning; what is known of the table stays."""
    assert TableState.from_json({"read": READ}, "dbo.t").read is not None
    read = {**READ, **changes}
    read = {key: value for key, value in read.items() if value is not None}
    assert TableState.from_json({"read": read, "n": 3}, "dbo.t") == TableState(rows=3)
    assert TableState.from_json({"read": [read], "n": 3}, "dbo.t") == TableState(rows=3)


def test_a_read_that_restarts_is_told(project: Project, server: MssqlSandbox) -> None:
    """By a warning, and no row is lost."""
    create_tables(server)
    state = saved("6-unfinished")
    del state["tables"]["dbo.plain"]["read"]["mode"]
    result = project.sync(configuration(server), state)
    assert result.code == 0, result.output
    assert result.output.count("dbo.plain: the state of its unfinished read is not one") == 1
    assert len(project.rows("plain")) == 100


@pytest.mark.parametrize(
    "entry",
    [
        {"k": {}},
        {"k": [1]},
        {"key": ["id"], "types": []},
        {"n": "3"},
        {"as": 5},
        {"as": ""},
        {"as": "\ud800"},
        {"names": {"a": "x" * 1_001}},
        {"m": "soon"},
        {"m": "2026-02-30"},
        {"r": "x"},
        {"l": ""},
        {"o": 2**62},
        {"v": "1"},
        {"c": 5},
        {"d": 5},
        {"d": "pA== soon"},
        {"u": 2**62},
        {"names": {"a": 1}},
        {"mixed": 1},
    ],
)
def test_an_entry_that_no_version_wrote_is_refused(entry: dict[str, Any]) -> None:
    """By an error that names the table and says what to do."""
    state = {"version": 1, "tables": {"dbo.t": entry}}
    with pytest.raises(ConnectorError, match=r"not one of .* \(its table dbo.t\).* re-sync"):
        load("mssql_ehi")._saved_state(state)

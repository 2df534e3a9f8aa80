# ruff: noqa: S608 - column values are naive; statements stay whole
"""The seeded database, the adapter for a real server, the command line."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytds
import pytest

from tests.sandbox.mssql import MssqlSandbox, RealServer, from_environment, seed_ehr
from tests.sandbox.mssql.parser import quote
from tests.sandbox.mssql.tests.client import ask, connect


def test_seeded_ehr(server: MssqlSandbox) -> None:
    """The same seed gives the same rows; the shapes that a connector must survive are there."""
    seeded = seed_ehr(server, patients=60, seed=3)
    with MssqlSandbox() as other:
        seed_ehr(other, patients=60, seed=3)
        for name in seeded.rows:
            assert server.execute(f"SELECT * FROM {name}") == other.execute(
                f"SELECT * FROM {name}"
            )
    assert seeded.rows["dbo.Results"] == 300
    with connect(server) as c:
        assert ask(c, "SELECT TABLE_SCHEMA FROM INFORMATION_SCHEMA.TABLES WHERE TABLE_NAME = "
                      "'Patients' ORDER BY 1") == [("archive",), ("dbo",)]  # fmt: skip
        cost = "[Total ]] Cost (USD)]"
        ((total,),) = ask(c, f"SELECT SUM({cost}) FROM dbo.Encounters")
        assert total > 0
        for name, count in seeded.rows.items():
            assert len(ask(c, f"SELECT * FROM {name}")) == count


def test_adapter_has_the_same_interface(server: MssqlSandbox) -> None:
    """The T-SQL that the adapter sends makes the same tables, here on the simulator."""
    with RealServer(server.host, server.port, server.user, server.password) as other:
        seed_ehr(other, patients=30, seed=5)
        seed_ehr(server, patients=30, seed=5)
        for name in (
            "dbo.Patients",
            "dbo.Orders",
            "dbo.Results",
            "dbo.Encounters",
            "dbo.AccessLog",
        ):
            columns = [c.name for c in server.table(name).columns]
            listed = ", ".join(quote(c) + (".ToString()" if c == "Path" else "") for c in columns)
            sql = f"SELECT {listed} FROM {name}"
            with connect(server) as c:
                assert other.execute(sql) == ask(c, sql)
        assert other.update("dbo.Patients", {"PatientKey": 3}, LastName="Neu", DeathDate=None) == 1
        assert other.delete("dbo.Patients", {"PatientKey": 4}) == 1
        assert other.count("dbo.Patients") == 29
        assert other.execute(
            "SELECT LastName FROM dbo.Patients WHERE PatientKey = %(key)s", {"key": 3}
        ) == [("Neu",)]
        other.create_view("dbo", "names", "SELECT PatientKey, LastName FROM dbo.Patients")
        assert len(other.execute("SELECT LastName FROM dbo.names")) == 29
        other.create_temporal_table("dbo", "t", [("id", "int")], key=["id"], rows=[(1,), (2,)])
        other.delete("dbo.t", {"id": 1})
        assert other.execute("SELECT id FROM dbo.t_History") == [(1,)]
        other.enable_cdc("dbo.Patients", columns=["PatientKey"])
        other.enable_cdc("dbo.Patients", "second", net=False, index="PK_Patients")
        other.delete("dbo.Patients", {"PatientKey": 5})
        other.capture()
        assert other.execute("SELECT PatientKey FROM cdc.dbo_Patients_CT") == [(5,)]
        newest = other.cdc_cleanup("dbo_Patients")
        lowest = "SELECT sys.fn_cdc_get_min_lsn(N'dbo_Patients') AS lsn"
        assert other.execute(lowest) == [(newest,)]
        other.disable_cdc("dbo.Patients", "second")


def test_server_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without MSSQL_TEST_SERVER there is the sandbox, with it the adapter."""
    monkeypatch.delenv("MSSQL_TEST_SERVER", raising=False)
    with from_environment() as found:
        assert isinstance(found, MssqlSandbox)
    for name, value in {"SERVER": "h", "PORT": "7", "USER": "u", "PASSWORD": "p"}.items():
        monkeypatch.setenv(f"MSSQL_TEST_{name}", value)
    named = from_environment()
    assert isinstance(named, RealServer)
    assert (named.host, named.port) == ("h", 7)


@pytest.mark.posix
def test_command_line() -> None:
    """`python -m tests.sandbox.mssql` serves the seeded database until it is interrupted."""
    command = [sys.executable, "-m", "tests.sandbox.mssql", "--patients", "20"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        facts: dict[str, str] = {}
        for line in process.stdout:
            name, _, value = line.strip().partition("  ")
            facts[name] = value.strip()
            if line.startswith("Ctrl-C"):
                break
        with pytds.connect(
            facts["host"], port=int(facts["port"]), user=facts["user"], password=facts["password"],
            database=facts["database"], cafile=facts["CA file"], validate_host=False,
        ) as c:  # fmt: skip
            assert ask(c, "SELECT COUNT(*) FROM dbo.Patients") == [(20,)]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0

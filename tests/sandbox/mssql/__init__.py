"""A local simulator of Microsoft SQL Server that speaks TDS 7.4 on a loopback socket.

with MssqlSandbox() as server:
    server.create_table("dbo", "visits", [("id", "int"), ("at", "datetime2(7)")], key=["id"],
                        rows=[(1, "2024-01-01T00:00:00.1234567")])
    pytds.connect(server.host, port=server.port, user=server.user, ...)
"""

from tests.sandbox.mssql import faults
from tests.sandbox.mssql.adapter import RealServer, from_environment
from tests.sandbox.mssql.connection import Fragmentation
from tests.sandbox.mssql.seed import seed_ehr
from tests.sandbox.mssql.server import ColumnSpec, MssqlSandbox, Transaction

__all__ = [
    "ColumnSpec",
    "Fragmentation",
    "MssqlSandbox",
    "RealServer",
    "Transaction",
    "faults",
    "from_environment",
    "seed_ehr",
]

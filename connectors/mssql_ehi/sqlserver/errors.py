"""The errors of the server and the driver, in words of our own: the driver's may quote a value.

SourceError (shared)
├── StatementError       the server responded with an error that no retry changes; `number`
├── ChangesExpired       Change Tracking no longer knows what changed since the last sync
├── SchemaChanged        the table has columns that were not there when the sync began
├── UndecodableRow       the driver cannot decode a row; the connection is lost with it
└── TransientError (shared)
    ├── Conflict             another session was in the way: a retry within seconds may succeed
    ├── SnapshotRefused      SNAPSHOT isolation is refused: a retry without it may succeed at once
    └── ServerUnreachable    no response: it concerns the whole server, not one table
        └── QueryTimeout         none within query_timeout_seconds

Numbers: https://learn.microsoft.com/sql/relational-databases/errors-events/
and https://learn.microsoft.com/azure/azure-sql/database/troubleshoot-common-errors-issues
"""

import re
from collections.abc import Mapping
from typing import Any

import pytds
from OpenSSL import SSL

from shared.errors import SourceError, TransientError

_TRANSIENT = {
    1205: "chosen as the victim of a deadlock",
    1222: "waited too long for a lock",
    1204: "out of locks",
    3960: "a concurrent change conflicts with the snapshot",
    3961: "the table was altered under the snapshot",
    3958: "the snapshot lost its row versions",
    3959: "no room for the row versions of a snapshot",
    3966: "the snapshot lost its row versions",
    3967: "no room for the row versions of a snapshot",
    3953: "the database is recovering",
    3954: "the database is changing its isolation",
    3956: "the database is changing its isolation",
    3957: "the database is changing its isolation",
    3947: "the replica fell behind and ended the transaction",
    3935: "short of resources",
    601: "the rows moved while they were read",
    1203: "a lock was lost",
    1219: "the session was ended for a change of the table",
    1221: "a lock was lost",
    8628: "waited too long for a plan",
    9515: "the table was altered meanwhile",
    10922: "the statement has to be run again",
    41301: "a concurrent change conflicts with the transaction",
    41302: "a concurrent change conflicts with the transaction",
    41305: "a concurrent change conflicts with the transaction",
    41325: "a concurrent change conflicts with the transaction",
    41839: "a concurrent change conflicts with the transaction",
    615: "an object was not found for a moment",
    913: "the database is changing its state",
    921: "the database is recovering",
    922: "the database is recovering",
    924: "the database takes a single user, and has one",
    926: "the database is recovering",
    927: "the database is being restored",
    941: "the database is not started",
    952: "the database is changing its state",
    4221: "the replica is not ready for logins",
    10936: "too busy",
    18451: "only administrators may log in for the moment",
    40642: "too busy",
    617: "an object was not found for a moment",
    669: "a row was not found for a moment",
    596: "the session was ended",
    701: "out of memory",
    802: "out of memory",
    8645: "waited too long for memory",
    8651: "out of memory",
    976: "the replica is not readable",
    978: "the replica is not readable",
    979: "the replica is not readable",
    982: "no replica is readable",
    983: "the replica is changing its role",
    988: "the replicas have no quorum",
    10928: "limit of the database reached",
    10929: "too busy",
    17142: "the server is paused",
    17187: "the server is starting",
    17188: "shutting down",
    17189: "out of threads",
    17197: "login timed out",
    17300: "out of memory or of connections",
    17809: "out of connections",
    18401: "being upgraded",
    6005: "shutting down",
    9001: "the log is not available",
    40020: "failing over",
    40143: "failing over",
    40166: "failing over",
    40197: "failing over",
    40501: "too busy",
    40540: "failing over",
    40544: "limit of the database reached",
    40549: "ended for running too long",
    40550: "ended for holding too many locks",
    40551: "ended for its use of tempdb",
    40552: "ended for its use of the log",
    40553: "ended for its use of memory",
    40613: "the database is not available at the moment",
    42108: "the pool is starting",
    42109: "the pool is starting",
    49918: "too busy",
    49919: "too busy",
    49920: "too busy",
}
_CONFLICTS = {
    *(601, 615, 617, 669, 1203, 1204, 1205, 1221, 1222, 3958, 3960, 3961, 3966, 9515, 10922),
    *(41301, 41302, 41305, 41325, 41839),
}
# The database does not allow SNAPSHOT isolation.
NO_SNAPSHOT = (3952,)
# One table does not: a FileTable, one with a clustered columnstore index before SQL Server 2016,
# one in memory; or a view of a linked server.
NO_SNAPSHOT_OF_TABLE = (7420, 33447, 35371, 41332)
# The lowest severity of errors that the server causes, and not a statement: they are transient.
_SERVER_SEVERITY = 17
# These are of such a severity, too, but a retry meets them again; as it does those of ADVICE.
_FINAL = (8621, 8631, 8632)
_LOGIN = "Check mssql_user and mssql_password"
_DATABASE = "Check mssql_database, and that mssql_user may open it"
_RIGHTS = "Grant SELECT to mssql_user, or name the table in exclude_tables"
# What another statement would not change, either.
ADVICE = {
    229: _RIGHTS,
    230: _RIGHTS,
    911: _DATABASE,
    978: 'It takes read-only connections alone: set read_only_intent to "true"',
    916: _DATABASE,
    1056: "It has more columns than a statement may read: name some in exclude_columns",
    4060: _DATABASE,
    8649: (
        "Its estimated cost is above the server's query governor cost limit: have the limit "
        "raised, or an index created on the columns that the table is ordered by"
    ),
    17892: "A logon trigger of the server refuses mssql_user",
    18452: "It takes Windows accounts alone: set mssql_domain, or have it take SQL Server logins",
    18456: _LOGIN,
    18470: "The login mssql_user is disabled",
    18486: "The login mssql_user is locked",
    18487: "The password of mssql_user has expired: change it, then mssql_password",
    18488: "The password of mssql_user must be changed, then mssql_password",
    40532: "Check mssql_server and mssql_user",
    4413: "It is a view of a table or column that is not there any more, or has another name",
    7202: "It is a view of a linked server that this server does not know",
    7399: "It is a view of a linked server that does not respond",
    40615: "The server's firewall does not let this address in",
    40914: "The server's firewall does not let this virtual network in",
    47073: (
        "It takes no connections from public networks: the sync needs a private endpoint, or the "
        "server has to allow public network access"
    ),
}
# A statement that evaluates it of fewer rows, or of other ones, may succeed.
_OF_EXPRESSION = dict.fromkeys(
    (241, 242, 245, 6263, 6522, 8114, 8115, 8134),
    "An expression fails for some row, such as that of a computed column or a view, or the text "
    "of a CLR type. Name its column in exclude_columns, or have it mended",
)
# The same numbers for a Windows account. The domain's own reason stays in the server's log.
WINDOWS_ADVICE = {
    18452: (
        "The password is wrong, or the server does not know or trust the domain. Check "
        "mssql_domain, mssql_user and mssql_password"
    ),
    18456: (
        "Check mssql_domain, mssql_user and mssql_password, and that the server has a login for "
        "the account or a group of it"
    ),
}
_OF_PRINCIPAL = (
    "Check mssql_database, mssql_tenant_id and mssql_client_id, and that the database has a user "
    "for the service principal: CREATE USER [its name] FROM EXTERNAL PROVIDER"
)
PRINCIPAL_ADVICE = dict.fromkeys((916, 4060, 18456), _OF_PRINCIPAL)
_STRICT = (
    ", and that the server does not demand strict encryption (TDS 8.0), which the connector does "
    "not have"
)
_LOST = (OSError, pytds.ClosedConnectionError, SSL.ZeroReturnError, SSL.SysCallError)


class StatementError(SourceError):
    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class ChangesExpired(SourceError): ...


class SchemaChanged(SourceError): ...


class UndecodableRow(SourceError): ...


class Conflict(TransientError): ...


class SnapshotRefused(TransientError): ...


class ServerUnreachable(TransientError): ...


class QueryTimeout(ServerUnreachable): ...


def explain(error: Exception, doing: str) -> SourceError:
    """Our error for one of the driver. ``doing``: what failed, for the message."""
    if isinstance(error, SourceError):  # of what replaces parts of the driver
        return error
    if isinstance(error, pytds.DatabaseError) and error.msg_no:
        return _explain_number(error.msg_no, doing, error.severity)
    # With a number it is the system's: nobody is there any more, however long one waits.
    if isinstance(error, TimeoutError) and error.errno is None:
        return QueryTimeout(f"{doing}: the server did not respond in time")
    if isinstance(error, (*_LOST, SSL.Error)):
        return TransientError(f"{doing}: the connection was lost ({type(error).__name__})")
    return UndecodableRow(f"{doing}: a row cannot be decoded ({type(error).__name__})")


def explain_login(
    error: Exception, doing: str, database: str, advice: Mapping[int, str]
) -> SourceError:
    """Our error for one of a login, where most are those of a setting. ``advice``: by number,
    where it is another one than for a login of SQL Server."""
    if isinstance(error, pytds.DatabaseError) and error.msg_no:
        return _explain_refused_login(error, doing, database, advice)
    text = str(error)
    if isinstance(error, SSL.Error) and "certificate verify failed" in text:
        return SourceError(
            f"{doing}: its certificate is refused. Put the certificate of the authority that "
            "issued it into mssql_ca_certificate, or have it renewed if it has expired"
        )
    if isinstance(error, pytds.Error) and "does not match host name" in text:
        return SourceError(
            f"{doing}: its certificate is not for this host. Set mssql_server to a name that "
            "the certificate has as a subject alternative name"
        )
    # The last one is of a server that asks for encryption where the settings switch it off.
    if re.search("requested encryption|encryption enabled|ENCRYPT|login.tls_ctx is not set", text):
        return SourceError(
            f"{doing}: the server does not agree on encryption. mssql_encrypt says whether the "
            "session is encrypted"
        )
    if isinstance(error, _LOST):
        hung_up = isinstance(error, (pytds.ClosedConnectionError, ConnectionResetError))
        return ServerUnreachable(
            f"{doing}: no response ({type(error).__name__}). Check mssql_server, mssql_port and "
            f"the firewalls on the way{_STRICT if hung_up else ''}"
        )
    return SourceError(
        f"{doing}: no login ({type(error).__name__}). Check that mssql_server and mssql_port are "
        "those of a SQL Server that speaks TLS 1.2"
    )


def _explain_refused_login(
    error: Any, doing: str, database: str, advice: Mapping[int, str]
) -> SourceError:
    # Of an unknown database the driver shows only the failed login that follows from it, but its
    # text begins with that of error 4060, which quotes the name in any language.
    unknown = error.msg_no == 18456 and f'"{database}"' in str(error)
    number = 4060 if unknown else error.msg_no
    if number in advice:
        text = f"{doing}: error {number} of the server. {advice[number]}"
        return StatementError(text, number)
    return _explain_number(number, doing, error.severity)


def _explain_number(number: int, doing: str, severity: int = 0) -> SourceError:
    told = ADVICE.get(number) or _OF_EXPRESSION.get(number)
    advice = f". {told}" if told else ""
    is_final = number in _FINAL or number in ADVICE
    by_server = (severity or 0) >= _SERVER_SEVERITY and not is_final
    if number in _TRANSIENT or by_server:
        reason = _TRANSIENT.get(number, f"severity {severity}")
        kind = Conflict if number in _CONFLICTS else TransientError
        return kind(f"{doing}: error {number} of the server ({reason}){advice}")
    return StatementError(f"{doing}: error {number} of the server{advice}", number)

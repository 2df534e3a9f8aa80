"""The errors a server sends, by their documented numbers.

Texts follow sys.messages (https://learn.microsoft.com/sql/relational-databases/errors-events/).
"""

from __future__ import annotations

# number -> (severity, text); `{0}` and so on are filled in by `error`.
_MESSAGES: dict[int, tuple[int, str]] = {
    102: (15, "Incorrect syntax near '{0}'."),
    137: (15, 'Must declare the scalar variable "{0}".'),
    189: (15, "The {0} function requires {1} to {2} arguments."),
    195: (15, "'{0}' is not a recognized built-in function name."),
    201: (16, "Procedure or function '{0}' expects parameter '{1}', which was not supplied."),
    206: (16, "Operand type clash: {0} is incompatible with {1}"),
    207: (16, "Invalid column name '{0}'."),
    208: (16, "Invalid object name '{0}'."),
    209: (16, "Ambiguous column name '{0}'."),
    213: (16, "Column name or number of supplied values does not match table definition."),
    217: (16, "Maximum stored procedure, function, trigger, or view nesting level exceeded."),
    220: (16, "Arithmetic overflow error for data type {0}, value = {1}."),
    229: (14, "The {0} permission was denied on the object '{1}', database '{2}', schema '{3}'."),
    230: (
        14,
        (
            "The {0} permission was denied on the column '{1}' of the object '{2}', database "
            "'{3}', schema '{4}'."
        ),
    ),
    241: (16, "Conversion failed when converting date and/or time from character string."),
    242: (
        16,
        "The conversion of a {0} data type to a {1} data type resulted in an out-of-range value.",
    ),
    243: (16, "Type {0} is not a defined system type."),
    245: (16, "Conversion failed when converting the {0} value '{1}' to data type {2}."),
    262: (14, "{0} permission denied in database '{1}'."),
    271: (
        16,
        (
            'The column "{0}" cannot be modified because it is either a computed column or is '
            "the result of a UNION operator."
        ),
    ),
    273: (
        16,
        (
            "Cannot insert an explicit value into a timestamp column. Use INSERT with a column "
            "list to exclude the timestamp column, or insert a DEFAULT into the timestamp column."
        ),
    ),
    297: (16, "The user does not have permission to perform this action."),
    300: (14, "{0} permission was denied on object 'server', database 'master'."),
    305: (
        16,
        "The {0} data type cannot be compared or sorted, except when using the IS NULL operator.",
    ),
    313: (
        16,
        "An insufficient number of arguments were supplied for the procedure or function {0}.",
    ),
    371: (16, "The user does not have permission to read the view '{0}'."),
    402: (16, "The data types {0} and {1} are incompatible in the {2} operator."),
    448: (16, "Invalid collation '{0}'."),
    468: (
        16,
        'Cannot resolve the collation conflict between "{0}" and "{1}" in the equal to operation.',
    ),
    515: (
        16,
        (
            "Cannot insert the value NULL into column '{0}', table '{1}'; column does not allow "
            "nulls. INSERT fails."
        ),
    ),
    529: (16, "Explicit conversion from data type {0} to {1} is not allowed."),
    537: (16, "Invalid length parameter passed to the LEFT or SUBSTRING function."),
    544: (
        16,
        (
            "Cannot insert explicit value for identity column in table '{0}' when IDENTITY_INSERT "
            "is set to OFF."
        ),
    ),
    911: (16, "Database '{0}' does not exist. Make sure that the name is entered correctly."),
    978: (
        14,
        (
            "The target database ('{0}') is in an availability group and is currently accessible "
            "for connections when the application intent is set to read only."
        ),
    ),
    1033: (
        15,
        (
            "The ORDER BY clause is invalid in views, inline functions, derived tables, "
            "subqueries, and common table expressions, unless TOP, OFFSET or FOR XML is also "
            "specified."
        ),
    ),
    1205: (
        13,
        (
            "Transaction (Process ID {0}) was deadlocked on lock resources with another process "
            "and has been chosen as the deadlock victim. Rerun the transaction."
        ),
    ),
    1222: (16, "Lock request time out period exceeded."),
    1219: (16, "Your session has been disconnected because of a high priority DDL operation."),
    1939: (16, "Cannot create index on view '{0}' because the view is not schema bound."),
    1940: (16, "Cannot create index on view '{0}'. It does not have a unique clustered index."),
    2601: (
        14,
        "Cannot insert duplicate key row in object '{0}' with unique index '{1}'.",
    ),
    2627: (14, "Violation of {1} constraint. Cannot insert duplicate key in object '{0}'."),
    2628: (16, "String or binary data would be truncated in table '{0}', column '{1}'."),
    2705: (16, "Column names in each table must be unique. Column name '{0}' is duplicated."),
    2714: (16, "There is already an object named '{0}' in the database."),
    2715: (16, "Column, parameter, or variable #{0}: Cannot find data type {1}."),
    2760: (16, 'The specified schema name "{0}" either does not exist or you do not have access.'),
    2812: (16, "Could not find stored procedure '{0}'."),
    3701: (11, "Cannot drop the {0} '{1}', because it does not exist or you do not have access."),
    3705: (16, "Cannot use DROP {0} with '{1}' because '{1}' is a {2}. Use DROP {3}."),
    3729: (16, "Cannot DROP TABLE '{0}' because it is being referenced by object '{1}'."),
    3902: (16, "The COMMIT TRANSACTION request has no corresponding BEGIN TRANSACTION."),
    3903: (16, "The ROLLBACK TRANSACTION request has no corresponding BEGIN TRANSACTION."),
    3947: (
        16,
        (
            "The transaction was aborted because the secondary compute failed to catch up redo. "
            "Retry the transaction."
        ),
    ),
    3951: (
        16,
        (
            "Transaction failed in database '{0}' because the statement was run under snapshot "
            "isolation but the transaction did not start in snapshot isolation."
        ),
    ),
    3952: (
        16,
        (
            "Snapshot isolation transaction failed accessing database '{0}' because snapshot "
            "isolation is not allowed in this database. Use ALTER DATABASE to allow snapshot "
            "isolation."
        ),
    ),
    3953: (
        16,
        (
            "Snapshot isolation transaction failed in database '{0}' because the database is not "
            "recovered when the current transaction starts. Retry the transaction after the "
            "database is recovered."
        ),
    ),
    3954: (
        16,
        (
            "Snapshot isolation transaction failed to start in database '{0}' because the ALTER "
            "DATABASE command that disallows snapshot isolation had started before this "
            "transaction began."
        ),
    ),
    3961: (
        16,
        (
            "Snapshot isolation transaction failed in database '{0}' because the object accessed "
            "by the statement has been modified by a DDL statement in another concurrent "
            "transaction since the start of this transaction."
        ),
    ),
    4060: (11, 'Cannot open database "{0}" requested by the login. The login failed.'),
    4104: (16, 'The multi-part identifier "{0}" could not be bound.'),
    4112: (16, "The function '{0}' must have an OVER clause with ORDER BY."),
    4121: (
        16,
        (
            'Cannot find either column "{0}" or the user-defined function or aggregate "{0}.{1}", '
            "or the name is ambiguous."
        ),
    ),
    4413: (16, "Could not use view or function '{0}' because of binding errors."),
    4502: (16, "View or function '{0}' has more column names specified than columns defined."),
    4506: (
        16,
        (
            "Column names in each view or function must be unique. Column name '{0}' in view or "
            "function '{1}' is specified more than once."
        ),
    ),
    4511: (
        16,
        "Create View or Function failed because no column name was specified for column {0}.",
    ),
    4711: (
        16,
        (
            "Cannot truncate table '{0}' because it is published for replication or enabled for "
            "Change Data Capture."
        ),
    ),
    4922: (16, "{0} failed because one or more objects access this column."),
    4924: (
        16,
        "ALTER TABLE DROP COLUMN failed because column '{0}' does not exist in table '{1}'.",
    ),
    7202: (
        11,
        (
            "Could not find server '{0}' in sys.servers. Verify that the correct server name was "
            "specified. If necessary, execute the stored procedure sp_addlinkedserver to add the "
            "server to sys.servers."
        ),
    ),
    7399: (
        16,
        (
            'The OLE DB provider "MSOLEDBSQL" for linked server "{0}" reported an error. The '
            "provider did not give any information about the error."
        ),
    ),
    4928: (16, "Cannot alter column '{0}' because it is '{1}'."),
    8114: (16, "Error converting data type {0} to {1}."),
    8115: (16, "Arithmetic overflow error converting {0} to data type {1}."),
    8116: (16, "Argument data type {0} is invalid for argument {1} of {2} function."),
    8117: (16, "Operand data type {0} is invalid for {1} operator."),
    8134: (16, "Divide by zero error encountered."),
    8144: (16, "Procedure or function {0} has too many arguments specified."),
    8145: (16, "@{0} is not a parameter for procedure {1}."),
    8152: (16, "String or binary data would be truncated."),
    8158: (16, "'{0}' has more columns than were specified in the column list."),
    8159: (16, "'{0}' has fewer columns than were specified in the column list."),
    8169: (
        16,
        "Conversion failed when converting from a character string to uniqueidentifier.",
    ),
    8170: (16, "Insufficient result space to convert uniqueidentifier value to char."),
    8649: (
        17,
        (
            "The query has been canceled because the estimated cost of this query ({0}) exceeds "
            "the configured threshold of {1}. Contact the system administrator."
        ),
    ),
    10928: (
        20,
        "Resource ID: 1. The request limit for the database is 60 and has been reached.",
    ),
    10929: (20, "Resource ID: 1. The server is currently too busy."),
    13501: (
        16,
        "Temporal generated always column '{0}' has invalid data type; it must be datetime2.",
    ),
    13510: (
        16,
        "Cannot set SYSTEM_VERSIONING to ON when SYSTEM_TIME period is not defined.",
    ),
    13535: (
        16,
        (
            "Data modification failed on system-versioned table '{0}' because transaction time "
            "was earlier than period start time for affected records."
        ),
    ),
    13536: (
        16,
        (
            "Cannot insert an explicit value into a GENERATED ALWAYS column in table '{0}'. Use "
            "INSERT with a column list to exclude the GENERATED ALWAYS column, or insert a "
            "DEFAULT into GENERATED ALWAYS column."
        ),
    ),
    13537: (16, "Cannot update GENERATED ALWAYS columns in table '{0}'."),
    13539: (
        15,
        (
            "Setting SYSTEM_VERSIONING to ON failed because history table '{0}' is not specified "
            "in two-part name format."
        ),
    ),
    13545: (
        16,
        (
            "Truncate failed on table '{0}' because it is not a supported operation on "
            "system-versioned tables."
        ),
    ),
    13550: (
        16,
        (
            "Add column operation failed on table '{0}' because it is not a supported operation "
            "on system-versioned temporal tables."
        ),
    ),
    13551: (
        16,
        (
            "Drop column operation failed on table '{0}' because it is not a supported operation "
            "on system-versioned temporal tables."
        ),
    ),
    13552: (
        16,
        (
            "Drop table operation failed on table '{0}' because it is not a supported operation "
            "on system-versioned temporal tables."
        ),
    ),
    13553: (16, "System versioned temporal table '{0}' must have primary key defined."),
    13559: (16, "Cannot insert rows in a temporal history table '{0}'."),
    13560: (16, "Cannot delete rows from a temporal history table '{0}'."),
    13561: (16, "Cannot update rows in a temporal history table '{0}'."),
    13566: (16, "Temporal table '{0}' is already in use."),
    13591: (16, "SYSTEM_VERSIONING is not turned ON for table '{0}'."),
    13908: (16, "Cannot access internal graph column '{0}'."),
    18452: (
        14,
        (
            "Login failed. The login is from an untrusted domain and cannot be used with "
            "Integrated authentication."
        ),
    ),
    18456: (14, "Login failed for user '{0}'."),
    22105: (
        16,
        "Change tracking is not enabled on table '{0}'.",
    ),
    22901: (
        16,
        (
            "The database '{0}' is not enabled for Change Data Capture. Ensure that the correct "
            "database context is set and retry the operation. To report on the databases enabled "
            "for Change Data Capture, query the is_cdc_enabled column in the sys.databases "
            "catalog view."
        ),
    ),
    22926: (
        16,
        (
            "Could not create a capture instance because the capture instance name '{0}' already "
            "exists in the current database. Specify an explicit unique name for the parameter "
            "@capture_instance."
        ),
    ),
    22929: (
        16,
        (
            "Index '{0}' must be either a primary key or a unique index for table '{1}'. Specify "
            "an index that meets at least one of these requirements."
        ),
    ),
    22930: (
        16,
        ("Could not locate '{0}' as a column of source table '{1}'. Specify a valid column name."),
    ),
    22931: (
        16,
        (
            "Source table '{0}' does not exist in the current database. Ensure that the correct "
            "database context is set. Specify a valid schema and table name for the database."
        ),
    ),
    22939: (
        16,
        (
            "The parameter @supports_net_changes is set to 1, but the source table does not have "
            "a primary key defined and no alternate unique index has been specified."
        ),
    ),
    22960: (
        16,
        "Change data capture instance '{0}' has not been enabled for the source table.",
    ),
    22962: (
        16,
        (
            "Two capture instances already exist for source table '{0}'. A table can have at most "
            "two capture instances. If the current tracking options are not appropriate, disable "
            "change tracking for the obsolete instance by using sys.sp_cdc_disable_table and "
            "retry the operation."
        ),
    ),
    22964: (
        16,
        (
            "LSN {0}, specified as the new low end point for change table cleanup must represent "
            "the start_lsn value of a current entry in the cdc.lsn_time_mapping table. Choose an "
            "LSN value that satisfies this requirement."
        ),
    ),
    33447: (
        16,
        (
            "Cannot access file_stream column in FileTable '{0}', because FileTable doesn't "
            "support row versioning."
        ),
    ),
    35371: (
        16,
        (
            "SNAPSHOT isolation level is not supported on a table which has a clustered "
            "columnstore index."
        ),
    ),
    40197: (20, "The service has encountered an error processing your request. Please try again."),
    40501: (20, "The service is currently busy. Retry the request after 10 seconds."),
    40613: (
        17,
        (
            "Database '{0}' on server 'sandbox' is not currently available. Please retry the "
            "connection later."
        ),
    ),
    41301: (
        16,
        "A previous transaction that the current transaction took a dependency on has aborted.",
    ),
    41302: (
        16,
        (
            "The current transaction attempted to update a record that has been updated since "
            "this transaction started. The transaction was aborted."
        ),
    ),
    41305: (
        16,
        ("The current transaction failed to commit due to a repeatable read validation failure."),
    ),
    41325: (
        16,
        "The current transaction failed to commit due to a serializable validation failure.",
    ),
    41332: (
        16,
        (
            "Memory optimized tables and natively compiled modules cannot be accessed or created "
            "when the session TRANSACTION ISOLATION LEVEL is set to SNAPSHOT."
        ),
    ),
    49918: (16, "Cannot process request. Not enough resources to process request."),
    49919: (16, "Cannot process create or update request. Too many operations in progress."),
    49920: (16, "Cannot process request. Too many operations in progress for the subscription."),
}


class SqlError(Exception):
    """One ERROR token. `severity` 20 and above closes the connection, as the server does."""

    def __init__(
        self, number: int, message: str, *, severity: int = 16, state: int = 1, line: int = 1
    ) -> None:
        super().__init__(f"{number}: {message}")
        self.number = number
        self.message = message
        self.severity = severity
        self.state = state
        self.line = line


def error(number: int, *values: object, state: int = 1) -> SqlError:
    """The error of that number, its text filled in with `values`.

    An unlisted number gets a text of its own and severity 16; missing values become "".
    """
    severity, text = _MESSAGES.get(number, (16, f"Error {number}."))
    filled = [*map(str, values), "", "", "", ""]
    return SqlError(number, text.format(*filled), severity=severity, state=state)


def unsupported(what: str) -> SqlError:
    """What this simulator does not know: an error 102, never a made-up result."""
    severity = _MESSAGES[102][0]
    text = f"Incorrect syntax near '{what}'. (Not in the T-SQL subset of this simulator.)"
    return SqlError(102, text, severity=severity)

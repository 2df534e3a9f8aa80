"""How connector.py reads SQL Server. In the order in which a sync uses them:

Connecting
    settings         the configuration, and the patterns of tables and columns in it
    addresses        the name of a server, the SQL Server Browser, sockets
    entra            access tokens of Microsoft Entra ID (Azure Active Directory)
    tds_patches      python-tds with its defects mended; importing it applies the patches
    errors           errors of the server and the driver, as errors that say what to do
    session          connects, sends statements, retries after transient errors
    row_decoder      makes a function that decodes the rows of one result
    row_reader       rows by that function, where the driver would need several times as long
    server_features  what the server and its database allow
Finding the tables
    type_mapping     the types of SQL Server: how each is selected, declared, converted, compared
    source_tables    a table and its columns, as the source has them
    table_state      what the state keeps of a table
    naming           names at the destination, and patterns of names
    restrictions     columns that the login cannot read, or reads masked
    table_keys       which unique index is the key of a table
    catalogue        reads the catalog views, of thousands of tables too
    schema           completes the tables: names, keys, what the state knows of them
    change_capture   Change Data Capture: its instances, and whether they know all changes
Reading them
    query            the plan of a table: which rows are read, in which order; its statements
    late_rows        rows that a cursor of moments could miss
    windows          whether the rows that are read next are what they were
    change_tracking  Change Tracking: which tables have changes, and whether all are known
    source_clock     the clocks and versions of the server
    read_progress    how far the read of a table has come
    read_start       where it starts: resumed, incremental, or full
    rows             converts rows for the destination
    table_writer     stores rows: converts a batch and hands it to the SDK
    checkpoints      the checkpoints that the tables of a sync share
    table_sync       syncs one table, and saves its cursor
    workers          syncs several tables at once
    validation       the tables that tell what a sync did
"""

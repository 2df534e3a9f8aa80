"""How connector.py reads SQL Server, in the order in which a sync goes through it.

settings         the configuration, and the patterns of tables and columns in it
addresses        the name of a server, the SQL Server Browser, a socket to one of its addresses
entra            access tokens of Microsoft Entra ID (Azure Active Directory)
tds_patches      python-tds, with what it does wrong replaced
errors           what the driver raises, as errors that say what to do
session          connects, sends statements, and retries those that a lost connection ended
server_features  what the server can do: snapshots, rowversions, whether it is a replica
type_mapping     the types of SQL Server: how each is selected, declared and measured
source_tables    a table and its columns, as the source has them
naming           names at the source and at the destination, and patterns of them
restrictions     what the login may not see: columns without a grant, masks, rows
table_keys       which unique index is the key of a table
schema           finds the tables, from the catalogue views
query            how a table is read, and the statements for it
late_rows        looks for rows that were committed behind the cursor
table_state      the entry of a table in the state
source_clock     up to which moment the rows of a table are final
read_start       where a read begins: at a position, at the cursor, or with everything
read_progress    how far a read is, and what the state keeps of it
rows             what a statement returns, as rows for the destination
table_writer     upserts, deletes, truncates and checkpoints of one table
table_sync       reads one table and moves its cursor
workers          several tables at once
validation       the tables that say what a sync did
"""

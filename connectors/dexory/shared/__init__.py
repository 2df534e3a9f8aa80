"""What the connectors share: mechanisms, with no knowledge of any source.

errors    the errors that end a sync, and the guard that keeps data out of crash reports
settings  the configuration: declared once, checked before the first request
form      the setup form that the settings declare, and tests that call the source
rest      JSON over HTTPS from one origin, with back-off
times     timestamps of any form, in UTC
rows      records as rows of typed columns; those that cannot be stored, counted
state     the state, and the window that a table is read for
pages     pages read ahead, several at once where their number is known
spool     rows that wait, in memory or compressed on disk
listing   a table brought up to date from the source's list

`make vendor` copies this folder into every connector. Edit this one, never a copy.
"""

import gc

# What is loaded by now stays. Collections, which many rows bring about, need not look through it:
# that took up to a quarter of a sync.
gc.freeze()

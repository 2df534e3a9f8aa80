"""What the connectors share: mechanisms, with no knowledge of any source.

errors    the errors that end a sync, and the guard that keeps data out of crash reports
settings  the configuration: declared once, checked before the first request
fields    the settings that several connectors have
local     the configuration of a sync on this machine
form      the setup form that the settings declare, and tests that call the source
network   connections: why one fails, and a deadline for each response
rest      JSON over HTTPS from one origin, with retries
oauth     access tokens of OAuth 2.0, and when to renew them
encryption  values in the state that only the configuration's secret opens
times     timestamps of any form, in UTC
rows      records as rows of typed columns; those that cannot be stored, counted
state     the state, and the window that a table is read for
pages     numbered or linked pages, read ahead, several at once where their number is known
spool     rows that wait, in memory or compressed on disk
completeness  whether what was read of a list is all of it
fingerprint  what the rows of a table are, in a few bytes, so that unchanged ones are not sent
listing   a table brought up to date from the source's list

`make vendor` copies this folder into every connector. Edit this one, never a copy.
"""

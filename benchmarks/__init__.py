"""What a sync costs above its floor: `make bench`, or `python -m benchmarks [NAME ...]`.

Each figure is shown with its floor: what the same work costs without the connector, measured in
the same run. Only their ratio says something; the figures alone depend on the machine.

- Connector and floor take turns, each in a fresh process, so that neither drift of the machine nor
  memory that one of them left favours the other. Medians are shown, and the spread of ratios.
- The simulator of the source runs in a process of its own: its cost is not counted.
- A counter replaces the SDK's sink, since a connector cannot save what the SDK costs. Only
  "local row" includes the SDK, in the figure and in the floor.
- CPU is user and system time together; memory is the peak that was resident (Linux only).
- benchmarks/mssql_ehi.py, mssql_tables.py, mssql_parallel.py and rest.py say what each figure
  means; of a connector without a benchmark of its own, simulated.py does.

The largest table has `--rows` rows (by default 1,000,000 in mssql_ehi, 400,000 over HTTP). Memory
is measured with this table, CPU by row with a fifth or a tenth of it.

`--check` ends with exit code 1 if a figure exceeds its limit. `--json FILE` writes the figures.
"""

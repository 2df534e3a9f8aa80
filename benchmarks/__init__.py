"""What a sync costs above its floor: `make bench`, or `python -m benchmarks [NAME ...]`.

Each figure stands beside its floor: what the same work costs without the connector, measured in
the same run. Only the ratio of the two says something; the figures alone depend on the machine.

- Connector and floor take turns, each in a fresh process, so that neither drift of the machine nor
  what one of them left in memory favours the other. Shown are medians, and the spread of ratios.
- The simulator of the source runs in a process of its own: what it spends is not counted.
- The SDK's sink is replaced by a counter: what the SDK costs is not the connector's to save.
  "local row" alone has the SDK in it, in the figure and in the floor.
- CPU is that of user and system together; memory is the most that was resident (Linux only).
- What each figure means stands in benchmarks/mssql_ehi.py and benchmarks/rest.py.

The largest table has `--rows`, without that 1,000,000 in mssql_ehi and 400,000 over HTTP. It
is the one of the memory; CPU by row is that of a fifth and a tenth of it.

`--check` ends with exit code 1 when a figure is over its limit. `--json FILE` is for machines.
"""

"""What a sync costs above its floor: `make bench`, or `python -m benchmarks`.

Each figure stands beside its floor: what the same work costs without the connector, measured in
the same run. Only the ratio of the two says something; the figures alone depend on the machine.

- Connector and floor take turns, each in a fresh process, so that neither drift of the machine nor
  what one of them left in memory favours the other. Shown are medians, and the spread of ratios.
- The stand-in of the source runs in a process of its own: what it spends is not counted.
- The SDK's sink is replaced by a counter: what the SDK costs is not the connector's to save.
- CPU is that of user and system together; memory is the most that was resident (Linux only).

`--check` ends with exit code 1 when a figure is over its limit. `--json FILE` is for machines.
"""

"""Generated tests: schedules of changes, faults and crashes, and hostile responses.

schedules      run steps against a connector; at the end its destination must equal the simulator
crashes        end a sync as `kill -9` would, at any request or checkpoint
broken_states  make states that no version wrote

For mssql_ehi, `make soak` also reads responses that tests/connectors/tds_responses.py makes up, by
the driver and by the connector's own decoder: both must give the same.

The simulators forge responses by tests/sandbox/forging.py, and break connections by proxy.py.

`make test` runs some tens of schedules, `make soak` thousands: `python -m tests.soak --help`.
"""

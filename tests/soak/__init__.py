"""What no one chose by hand: schedules of changes, faults and crashes, and hostile responses.

schedules  steps against a connector and its simulator; then the destination must equal the source
crashes    a sync that ends as `kill -9` would end it, at any request or checkpoint

The simulators forge responses by tests/sandbox/forging.py, and break connections by proxy.py.

`make test` runs some tens of them, `make soak` thousands: `python -m tests.soak --help`.
"""

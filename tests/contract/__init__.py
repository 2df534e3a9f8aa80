"""What every connector must do, run over each folder in connectors/ with its simulator.

The settings must have `retry_attempts`; over HTTP, a first sync sends three requests for data at
least, and with `reconcile_hours` "0", where there is such a key, so does every later one.
"""

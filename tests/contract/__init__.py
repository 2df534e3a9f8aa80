"""What every connector must do: these tests run each folder in connectors/ with its simulator.

The settings must have `retry_attempts`. Over HTTP, a first sync sends at least three requests for
data, and so does every later one with `reconcile_hours` "0", where there is such a key.
"""

"""What developers do with the connectors: `python -m tools VERB`, which the Makefile calls.

The verbs are declared in `__main__`; the code of each is in the module that it names there.
"""

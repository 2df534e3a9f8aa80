"""What a connector costs before its first request, in a process that does nothing else.

`python -m benchmarks.startup CONFIGURATION [FOLDER]` writes to stderr the seconds of CPU since the
process began: after the import of the connector in FOLDER, and at its first request. Without
FOLDER: after the import of the SDK and requests, and at the first request of a bare session.
"""

import importlib
import json
import sys
import time
from typing import Any

import requests
from fivetran_connector_sdk import Logging


class _ReachedError(BaseException):
    """No Exception, so that nothing catches it."""


def _stop(*_: Any, **__: Any) -> None:
    sys.stderr.write(json.dumps([imported, time.process_time()]))  # the log goes to stdout
    raise _ReachedError


configuration, *folders = sys.argv[1:]
Logging.LOG_LEVEL = Logging.Level.INFO  # what `fivetran debug` sets, and the log needs
if folders:
    sys.path.append(*folders)  # as the SDK does
    connector = importlib.import_module("connector")

imported = time.process_time()
requests.Session.request = _stop  # type: ignore[assignment, method-assign]
try:
    if folders:
        connector.update(json.loads(configuration), state={})
    else:
        requests.Session().request("GET", "http://127.0.0.1")
except _ReachedError:
    pass

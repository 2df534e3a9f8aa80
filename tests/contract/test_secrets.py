"""No secret and no value of a record is shown."""

import json
from typing import Any

from tests.contract.helpers import failed, in_full, over_http, succeeded, within


@over_http
def test_no_secret_and_no_value_of_a_record_is_shown(project: Any, sandbox: Any) -> None:
    """Logs, the state, URLs and crash reports show none, after a success and after a failure."""
    secrets = sandbox.secrets()
    first = succeeded(project.debug(in_full(sandbox)))
    outputs = [first.output, project.everything_written()]
    for skip, what in enumerate(
        [
            {"status": 422, "body": json.dumps({"error": sorted(secrets)[0]})},
            {"status": 200, "body": json.dumps({"data": [sorted(secrets)]})},
        ]
    ):
        sandbox.fault(sandbox.data_path, skip=within(sandbox, skip), times=None, **what)
        result = failed(project.debug(in_full(sandbox, retry_attempts="0")))
        outputs += [result.output, project.everything_written()]
        sandbox.faults.clear()
    assert list(project.path.glob("crash-reports/*"))
    outputs += [request.url for request in sandbox.requests]
    shown = {
        secret for secret in sandbox.secrets() | secrets for text in outputs if secret in text
    }
    assert not shown

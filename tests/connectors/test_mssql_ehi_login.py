"""mssql_ehi: how the server is found and logged in to."""

import pytest

from tests.connectors.mssql import create_plain, ids, synced
from tests.sandbox.fivetran import Project
from tests.sandbox.mssql import MssqlSandbox

pytestmark = pytest.mark.usefixtures("slept")


# Names and passwords


@pytest.mark.parametrize(
    ("user", "password", "database"),
    [
        ("reader", "<Abc-123>", "EHR"),
        ("reader", " p w ", "EHR"),
        ("reader", "pass🩺word𝄞", "EHR"),
        ("läs🩺are", "🩺", "EHR"),
        ("reader", "plain", "患者🩺 data"),
        (" reader", "<abc>", "<Ehr>"),
        ("𠮷" * 60, "𠮷" * 60, "𠮷" * 60),
    ],
)
@pytest.mark.parametrize("encrypted", ["true", "false"])
def test_names_and_passwords_are_passed_on_exactly(
    project: Project, user: str, password: str, database: str, encrypted: str
) -> None:
    """With characters beyond the basic plane, blanks at the ends, and angle brackets."""
    with MssqlSandbox(user=user, password=password, database=database) as server:
        create_plain(server)
        synced(project, server, mssql_encrypt=encrypted)
        assert ids(project) == list(range(30))
        assert {(login.user, login.database) for login in server.logins} == {(user, database)}
        assert server.failures == []

"""States that older versions wrote, one of each form, and states of this version for an older one:
the next sync resumes with them."""

import io
import json
import random
import subprocess
import tarfile
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import time_machine

from tests.compare import assert_equal_to_source
from tests.contract.conftest import LITTLE
from tests.contract.helpers import known, succeeded
from tests.sandbox import create, kind_of, names
from tests.sandbox.fivetran import Project
from tests.sandbox.server import Sandbox
from tests.soak.crashes import Crash, Process
from tests.soak.schedules import STATES_OF_OLDER_VERSIONS
from tests.width import wide
from tools.paths import ROOT

BEFORE = "0d98988e"  # the commit of the version to which a connection may be set back
NOW = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        (path.parent.name, path.stem)
        for name in names(Sandbox)
        for path in sorted((STATES_OF_OLDER_VERSIONS / name).glob("*.json"))
    ],
)
def test_a_state_of_an_older_version_is_resumed(name: str, form: str, tmp_path: Path) -> None:
    """What changed since it was written arrives, and nothing that was there is lost."""
    project = Project(name, tmp_path)
    with time_machine.travel(NOW), create(name) as source:
        succeeded(project.sync(source.configuration()))
        source.change_something()
        state = json.loads((STATES_OF_OLDER_VERSIONS / name / f"{form}.json").read_text())
        succeeded(project.sync(source.configuration(), state))
        refreshed = known(source, {"reconcile_hours": "0"})  # for deletes
        succeeded(project.sync(source.configuration(**refreshed)))
        assert_equal_to_source(project, source)


@pytest.mark.parametrize("name", ["dexory", *wide(*(n for n in names() if n != "dexory"))])
@pytest.mark.parametrize("killed", [("after-checkpoint", 2), *wide(((),))])
def test_the_version_before_goes_on_with_a_state_of_this_one(
    killed: tuple[Any, ...], name: str, tmp_path: Path
) -> None:
    """A roll-back costs no row, whether the last sync was whole or broke off."""
    archive = ["git", "archive", "--format=tar", BEFORE, f"connectors/{name}"]
    packed = subprocess.run(archive, cwd=ROOT, capture_output=True, check=False)
    if packed.returncode:
        pytest.skip("the history is not there, as in a shallow clone")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as files:
        files.extractall(tmp_path, filter="data")
    project = Project(name, tmp_path / "connectors")
    with kind_of(name).small(random.Random(LITTLE)) as source:
        with Process(*killed).running(), suppress(Crash):
            succeeded(project.sync(source.configuration()))
        for number in range(20):
            source.mutate(random.Random(number), deletes=False)
        succeeded(project.debug(source.configuration()))  # by the code in the project's folder
        refreshed = known(source, {"reconcile_hours": "0"})
        succeeded(project.debug(source.configuration(**refreshed)))
        assert_equal_to_source(project, source)

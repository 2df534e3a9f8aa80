"""Hostile responses and settings, a few for each connector: the outcome is rows or one clear
error, in bounded time and memory, and no cursor passes a lost row. `make soak` runs thousands."""

import random
import socket
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st
from werkzeug.wrappers import Response

from shared.errors import SettingsError
from shared.settings import declared
from tests.compare import assert_equal_to_source
from tests.sandbox import create, kind_of, names
from tests.sandbox.fivetran import Project, load
from tests.sandbox.forging import forge
from tests.sandbox.proxy import Proxy
from tests.sandbox.server import Sandbox
from tests.soak import schedules
from tests.width import wide

quickly = {"phases": [Phase.generate], "suppress_health_check": list(HealthCheck)}


@pytest.mark.parametrize("name", names())
def test_a_hostile_source_or_setting_costs_no_row(name: str, full: bool) -> None:
    """The outcome is rows or one clear error; then a quiet sync makes the destination equal."""

    @settings(max_examples=10 if full else 2, **quickly)  # type: ignore[arg-type]
    @given(schedules.hostile_schedules(name))
    def check(steps: list[str]) -> None:
        schedules.run(name, steps)

    check()


@pytest.mark.parametrize("name", names())
def test_any_configuration_is_read_or_refused(name: str, full: bool) -> None:
    """Whatever stands in it, the settings or one SettingsError without a value come out."""
    module = load(name)
    hostile = st.sampled_from(schedules.HOSTILE_VALUES) | st.text(min_size=4)
    value: Any = hostile | st.sampled_from((None, 0, True, 17, 1e300, [], ["x"], {"a": 1}))

    @settings(max_examples=300 if full else 40, **quickly)  # type: ignore[arg-type]
    @given(st.dictionaries(st.sampled_from([*declared(module.Settings)]), value))
    def check(configuration: dict[str, Any]) -> None:
        message = "No error"
        try:
            module.validate_configuration(configuration)
        except SettingsError as error:
            message = str(error)
        for line in message.splitlines()[1:]:
            assert line.partition(" ")[0] in declared(module.Settings)
        shown = [v for v in map(str, configuration.values()) if len(v) > 6 and v in message]
        assert not shown

    check()


@pytest.mark.parametrize("name", names(Sandbox))
@pytest.mark.parametrize("number", [0, *wide(1, 2)])
def test_a_body_without_an_end_takes_bounded_memory(
    name: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endless body, and a small one that decompresses to a large one, end at the stated
    limit."""
    monkeypatch.setattr("shared.rest.LARGEST_RESPONSE", 1_000_000)
    bodies = (b"[" + b" " * 65_535, b"0" * 65_536, b'"' + b"\\" * 65_535)
    with create(name) as simulator:
        assert isinstance(simulator, Sandbox)

        def endless(_real: Response) -> Response:
            chunks = (bodies[number] for _ in range(1_000))
            return Response(chunks, content_type="application/json")

        simulator.fault(simulator.data_path, times=None, forge=endless)
        tracemalloc.start()
        try:
            result = Project(name, tmp_path).sync(simulator.configuration())
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert "more than 1000000 bytes in a response" in result.output
    assert peak < 20_000_000


def test_a_forged_response_is_drawn_from_its_number() -> None:
    """A failure can be replayed: equal numbers forge equal responses, other numbers other ones."""
    body = b'{"data": [{"id": 1, "name": "x"}], "meta": {"total": 1}}'

    def forged(number: int) -> bytes:
        return forge(Response(body), random.Random(number)).get_data()

    assert [forged(number) for number in range(20)] == [forged(number) for number in range(20)]
    assert len({forged(number) for number in range(20)}) > 10


@pytest.mark.parametrize("how", ["cut", "reset", "stalled"])
@pytest.mark.parametrize("after", [*wide(100), 3_000, 9_000])
def test_sql_server_behind_a_broken_line(
    how: str, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that breaks at a login, in the catalogue or among rows costs no row of the same
    sync."""
    simulator = kind_of("mssql_ehi").small(random.Random(1))
    with simulator, Proxy(simulator.server.port, how, after, segment=50) as proxy:  # type: ignore[attr-defined]
        project = Project("mssql_ehi", tmp_path)
        result = project.sync(simulator.configuration(mssql_port=str(proxy.port)))
        assert result.code == 0, result.output
        assert_equal_to_source(project, simulator)


def test_the_proxy_breaks_a_connection_where_it_is_told_to() -> None:
    """After so many bytes the connection ends; the next one is whole."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send_twice() -> None:
            for _ in range(2):
                accepted, _ = server.accept()
                with accepted:
                    accepted.sendall(b"0123456789")

        sending = threading.Thread(target=send_twice)
        sending.start()
        with Proxy(server.getsockname()[1], "cut", 4, segment=3) as proxy:
            assert _everything(proxy.port) == b"0123"
            assert _everything(proxy.port) == b"0123456789"
        sending.join()


def _everything(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port)) as client, client.makefile("rb") as file:
        return file.read()

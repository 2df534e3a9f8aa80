"""Generated schedules: the source changes, time passes, requests fail, the process is killed. At
the end the destination must equal the source.

A schedule is a list of steps in words:

    form 7                       the simulator and its configuration are drawn from this number
    change 31                    one insert, change or delete at the source, drawn from it
    restore 31                   a record that changed goes back to what it was, unseen by windows
    wait 25                      so many hours pass
    sync                         a sync, which must succeed; with any of these:
      drop@3                       request 3 goes wrong: one of Simulator.troubles or .refusals
      changed@3, deleted@3         at request 3 the source changes, or a record is deleted
      expired@3                    at request 3 the credentials end
      tied@3, forbidden@3          for the whole sync: one of Simulator.conditions, drawn from 3
      forged@17                    a response is made hostile: one of Simulator.hostilities
      given@17                     a value of the configuration is hostile, for this sync
      after-checkpoint@2           the process is killed there: one of crashes.PLACES
      previous, none               the state before the last one is given, or none at all
      state@3                      the third state that was written is given, counted modulo them;
                                   as the README says, without what it tells of the destination
      broken@17                    the last state, or one of an older version, is given with one
                                   value missing or of another form; the sync may fail, but only
                                   by a StateError
"""

import difflib
import json
import random
import re
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import time_machine
from hypothesis import strategies as st

from shared.settings import declared
from tests.compare import differences, wrongly_deleted
from tests.sandbox import kind_of
from tests.sandbox.fivetran import Project, load
from tests.sandbox.server import Sandbox
from tests.sandbox.simulator import Simulator
from tools.paths import ROOT

from .broken_states import broken
from .crashes import CHECKPOINTS, PLACES, REQUESTS, Crash, Process

BEGIN = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
HOUR = 3600
STATES = ("previous", "none")
STATES_OF_OLDER_VERSIONS = ROOT / "tests" / "fixtures" / "states"
LONGEST_SYNC = 20  # seconds of CPU; most take a fifth of one
# Values of the configuration: other types and sizes, and text that is code in other languages.
HOSTILE_VALUES = (
    *("", " ", "\n", "\x00", "\ud800", "é", "٣", "a b", "a\r\nHost: x", "x" * 10_000, "<A>"),
    *("%s", "%%", "%(x)s", "{}", "{0}", "'; DROP TABLE x--", "[x].[y]", "]", "*", "*.*", "dbo.*"),
    *("0", "1", "+2", "-1", "1.5", "1e3", "0x10", "NaN", "99999999999999999999", "8" * 5_000),
    *("true", "FALSE", "yes", "null", "None", "2026-11-19", "2026-02-30", "2999-12-31", "v", ".."),
    *(",", "a,,b", "ins", "ins,outs", "ins(max)", "zone", "location,sensor", "timed", "dbo.timed"),
)
_NOT_UNDERSTOOD = re.compile(r"The saved state .*: deploy the version that wrote it, or re-sync")
ERRORS = ("failed while executing update() error: ", "failed while executing schema() error: ")


def schedules(name: str) -> st.SearchStrategy[list[str]]:
    """Schedules for a connector."""
    simulator, few = kind_of(name), st.integers(1, 6)
    many = few | st.integers(7, 30)
    nothing = st.just("")

    def at(kinds: Sequence[str], numbers: st.SearchStrategy[int]) -> st.SearchStrategy[str]:
        return st.builds("{}@{}".format, st.sampled_from(kinds), numbers)

    meanwhile = nothing | at(("changed", "changed", "changed", "deleted", "expired"), many)
    trouble = nothing | nothing | at((*simulator.troubles, *simulator.refusals), few)
    crash = nothing | at(REQUESTS, many) | at(CHECKPOINTS, few)
    state = st.sampled_from(("", "", "", *STATES)) | at(("state",), many)
    condition = nothing
    if simulator.conditions:
        condition = nothing | nothing | at(simulator.conditions, many)
    sync = st.builds("sync {} {} {} {} {}".format, meanwhile, trouble, condition, crash, state)
    step = st.one_of(
        st.builds("change {}".format, st.integers(0, 999)),
        st.builds("restore {}".format, st.integers(0, 999)),
        st.builds("wait {}".format, st.sampled_from((0.1, 2, 25, 25, 200))),
        sync.map(lambda text: " ".join(text.split())),
        sync.map(lambda text: " ".join(text.split())),
    )
    form = st.builds("form {}".format, st.integers(0, 999))
    steps = st.lists(step, min_size=2, max_size=10)
    return st.builds(lambda first, rest: [first, "sync", *rest], form, steps) | st.builds(
        lambda first, rest: [first, *rest], form, steps
    )


def hostile_schedules(name: str) -> st.SearchStrategy[list[str]]:
    """Schedules with a hostile response or setting; if that sync fails, the next one reads the
    rest."""
    numbers = st.integers(0, 10**6)
    response = st.builds("sync {}@{}".format, st.sampled_from(kind_of(name).hostilities), numbers)
    setting = st.builds("sync given@{}".format, numbers)
    before = st.sampled_from((["sync"], ["sync", "change 1", "change 2"], []))
    form = st.builds("form {}".format, numbers)
    responses = st.builds(lambda form, first, last: [form, *first, last], form, before, response)
    # Some settings count from the first sync on.
    settings = st.builds(lambda form, last: [form, "sync", "change 1", last], form, setting)
    return responses | responses | settings


def broken_state_schedules() -> st.SearchStrategy[list[str]]:
    """Schedules with states that no version wrote: after a whole sync, and after one that was
    killed in its midst."""
    return st.integers(0, 10**6).map(_with_broken_states)


def _with_broken_states(number: int) -> list[str]:
    draw = random.Random(number)
    killed = f" after-checkpoint@{draw.randint(1, 5)}" if draw.random() < 0.7 else ""
    steps = [f"form {draw.randrange(1000)}", f"sync{killed}"]
    for _ in range(6):
        steps += [f"change {draw.randrange(1000)}", f"sync broken@{draw.randrange(10**6)}"]
    return steps


def resume(name: str, form: int, *, every: bool) -> None:
    """Two syncs of a simulator that is drawn from ``form``; then, from each state that they have
    written, one more, after changes. Raises AssertionError if a row is missing then.

    Without ``every``: from the first state, one in the middle and the last one of the first sync,
    and from the first and the last one of the second."""
    with (
        tempfile.TemporaryDirectory() as folder,
        _little_data(name) as clock,
        kind_of(name).small(random.Random(form)) as simulator,
    ):
        schedule = _Schedule(simulator, Project(name, Path(folder)), clock, None)
        for step in ("sync", "wait 2", "change 1"):
            schedule.take(step)
        first = schedule.states[1:]
        schedule.take("sync")
        second = schedule.states[1 + len(first) :]
        if not every:
            first = [first[0], first[len(first) // 2], first[-1]]
            second = [second[0], second[-1]]
        for number, state in enumerate(dict.fromkeys([*first, *second])):
            schedule.take("wait 1")
            for change in range(20):
                simulator.mutate(random.Random(20 * number + change))
            schedule.resume(state)
        schedule.finish()


def run(name: str, steps: list[str], tally: Counter[str] | None = None) -> None:
    """Runs a schedule. Raises AssertionError if the destination does not equal the source at the
    end, or if a sync failed without a reason. ``tally`` counts what happened."""
    kind, given = steps[0].split() if steps else ("", "")
    if kind != "form":
        raise ValueError("a schedule begins with its form")
    with (
        tempfile.TemporaryDirectory() as folder,
        _little_data(name) as clock,
        kind_of(name).small(random.Random(int(given))) as simulator,
    ):
        schedule = _Schedule(simulator, Project(name, Path(folder)), clock, tally)
        for step in steps[1:]:
            schedule.take(step)
        schedule.finish()


@contextmanager
def _little_data(name: str) -> Iterator[time_machine.Traveller]:
    """Limits that little data exceeds, and a clock that can be moved."""
    load(name)
    with time_machine.travel(BEGIN) as clock, ExitStack() as stack:
        for constant, value in kind_of(name).limits.items():
            stack.enter_context(mock.patch(constant, value))

        def pause(closed: threading.Event, seconds: float) -> bool:
            clock.shift(seconds)
            return closed.is_set()

        stack.enter_context(mock.patch("shared.rest.pause", pause))
        yield clock


class _Schedule:
    def __init__(
        self,
        simulator: Simulator,
        project: Project,
        clock: time_machine.Traveller,
        tally: Counter[str] | None,
    ) -> None:
        self.simulator, self.project, self.clock = simulator, project, clock
        self.tally = Counter() if tally is None else tally
        self.states = ["{}"]  # in the order in which they were written
        self._known = declared(load(simulator.name).Settings)
        self._reconciles = "reconcile_hours" in self._known
        self._drifted = False  # rows were moved while they were read
        self._forged = self._failed = False  # a response was forged; the last sync failed
        self._configured = False  # a setting was hostile

    def take(self, step: str) -> None:
        verb, *words = step.split()
        if verb == "change":
            self.simulator.mutate(random.Random(int(words[0])))
        elif verb == "restore":
            restored = self.simulator.restore(random.Random(int(words[0])))
            self._drifted = self._drifted or restored
        elif verb == "wait":
            self.clock.shift(float(words[0]) * HOUR)
            self.simulator.set_clock((datetime.now(timezone.utc) - BEGIN).total_seconds())
        elif verb == "sync":
            self._sync(words)
        else:
            raise ValueError(step)

    def resume(self, state: str) -> None:
        """A sync from ``state`` must bring all changes. If it resumes an earlier pass, the next
        sync must."""
        self._pass([f"state@{self.states.index(state)}"])
        missing, _ = differences(self.project, self.simulator)
        if missing and not self._reconciles:
            self._pass()
            missing, _ = differences(self.project, self.simulator)
        assert not missing, f"a sync from {state} left rows out: {_some(missing)}"

    def finish(self) -> None:
        """Without faults and crashes the destination becomes equal to the source: one sync brings
        changes, a full refresh deletes.

        Rows of a forged response stay until a full refresh. Of several tables one may have
        failed, and another may have stored such rows.
        """
        whole = self._reconciles and not self._drifted
        strict = self._failed and self.simulator.one_list if self._forged else whole
        self._pass()
        if self._forged and not self._reconciles:
            self._pass()  # the first may have resumed an earlier pass
        missing, surplus = differences(self.project, self.simulator)
        if strict:
            assert not missing, f"a sync left changed rows out: {_some(missing, surplus)}"
        if "delete_sweep_hours" in self._known:
            self.take("wait 25")  # sweeps and full refreshes are due
        all_anew = ["none"] if self._forged and not self._reconciles else []
        output = self._pass(all_anew, reconcile_hours="0")
        if "lists nothing" in output:  # an empty list replaces a table at the second sync
            self._pass(reconcile_hours="0")
        missing, surplus = differences(self.project, self.simulator)
        assert not missing, f"rows are lost: {_some(missing, surplus)}"
        # Where nothing is replaced, forged rows stay.
        if not all_anew:
            assert not surplus, f"rows are not the source's: {_some(surplus)}"
        rows = sum(map(len, self.simulator.expected().values()))
        self.tally.update({"schedules": 1, "rows compared": rows})

    def _pass(self, words: Sequence[str] = (), **changes: str) -> str:
        """A sync or, while one ends at max_pages, as many as it takes."""
        for _ in range(20):
            output, words = self._sync(words, **changes), ()
            if "there are more pages than max_pages" not in output:
                return output
        raise AssertionError("the pages have no end")

    def _sync(self, words: Sequence[str], **changes: str) -> str:
        """One sync; returns what it printed. It must succeed unless ``words`` give a reason to
        fail."""
        process, state, excused = self._prepare(words)
        if state is not None or self._configured:
            self.simulator.set_back()
        is_broken = any(word.startswith("broken@") for word in words)
        valid = self.states if state is None or is_broken else self._states_up_to(state)
        changes = {key: value for key, value in changes.items() if key in self._known}
        changes |= self._settings(words)
        configuration = self.simulator.configuration(**changes)
        self._failed, spent, result = False, time.process_time(), None
        try:
            with process.running():
                result = self.project.sync(configuration, state)
        except Crash:
            self.tally["crashes survived"] += 1
        finally:
            self.simulator.calm()
            if result is None or result.code != 0:
                # It may have emptied tables that a later state calls whole.
                self.states = valid
            self.states += process.states
        self.tally["syncs"] += 1
        if result is None:
            return ""
        assert time.process_time() - spent < LONGEST_SYNC
        assert "please report it" not in result.output, result.output[-2000:]
        self._failed = result.code != 0
        one_error = any(error in result.output for error in ERRORS)
        assert not self._failed or one_error, result.output[-2000:]
        if result.code and self.simulator.repair(result.output):
            return self._sync([], **changes)
        refused = is_broken and _NOT_UNDERSTOOD.search(result.output)
        assert result.code == 0 or excused or refused, result.output[-2000:]
        if result.code == 0 and not (self._forged or self._configured):
            wrongly = wrongly_deleted(self.project, self.simulator)
            assert not wrongly, f"rows are deleted that the source has: {_some(wrongly)}"
        return result.output

    def _states_up_to(self, state: Any) -> list[str]:
        """The states that were written up to this one, for which no later sync has emptied a
        table."""
        places = [at for at, text in enumerate(self.states) if _set_back(text) == state]
        return self.states[: places[0] + 1] if places else [json.dumps(state)]

    def _prepare(self, words: Sequence[str]) -> tuple[Process, Any, bool]:
        """The process to sync in, the state to sync with (None: the last one), and whether the
        sync may fail."""
        simulator, process, state, excused = self.simulator, Process(), None, False
        for word in words:
            what, _, number = word.partition("@")
            if what in PLACES:
                process = Process(what, int(number))
            elif what in (*STATES, "state", "broken"):
                state = self._given_state(what, int(number or 0))
            elif what in ("changed", "deleted"):
                # After a delete other records move to pages that were read already.
                deletes = what == "deleted"
                self._drifted = self._drifted or deletes
                change = partial(simulator.mutate, random.Random(word), deletes=deletes)
                simulator.at_request(int(number), change)
            elif what == "expired":
                simulator.at_request(int(number), simulator.end_credentials)
            elif what == "given":
                excused = self._configured = True
            elif what in simulator.conditions:
                self.tally["conditions"] += 1
                # An odd value is valid at the source; a full refresh brings rows that ties hide.
                self._forged = self._forged or what == "odd"
                self._drifted = self._drifted or what in ("tied", "miscounted", "capped")
                excused = excused or what in ("forbidden", "odd")
                simulator.be(what, int(number))
            elif what in simulator.hostilities:
                self.tally["hostile responses"] += 1
                self._forged = self._forged or what == "forged"
                simulator.be_hostile(what, random.Random(int(number)))
                excused = True
            else:
                self.tally["faults set"] += 1
                simulator.trouble(what, int(number))
                excused = excused or what in simulator.refusals
        return process, state, excused

    def _given_state(self, what: str, number: int) -> Any:
        if what == "broken":
            self.tally["broken states"] += 1
            older = sorted(STATES_OF_OLDER_VERSIONS.glob(f"{self.simulator.name}/*.json"))
            draw, text = random.Random(number), self.states[-1]
            # Those of mssql_ehi are of tables with other keys.
            if older and isinstance(self.simulator, Sandbox) and draw.random() < 0.2:
                text = draw.choice(older).read_text()
            return broken(text, draw)
        if what == "state":
            return _set_back(self.states[number % len(self.states)])
        before = self.states[-2] if len(self.states) > 1 else "{}"
        return _set_back(before if what == "previous" else "{}")

    def _settings(self, words: Sequence[str]) -> dict[str, str]:
        """The hostile settings that ``words`` ask for; none of them is an address."""
        keys = [key for key in self._known if not key.endswith(("_url", "_server", "_port"))]
        numbers = [int(word.partition("@")[2]) for word in words if word.startswith("given@")]
        draws = [random.Random(number) for number in numbers]
        return {draw.choice(keys): draw.choice(HOSTILE_VALUES) for draw in draws}


def _set_back(text: str) -> dict[str, Any]:
    """A state that a user gives a connection again: without what the destination had then."""
    state: dict[str, Any] = json.loads(text)
    if state:
        state["open"] = True  # as that of a sync that was killed
    for entry in state.get("tables", {}).values():
        for name in ("fingerprint", "days"):
            entry.pop(name, None)
    return state


def _some(rows: Counter[str], others: Collection[str] = ()) -> str:
    """The first few of ``rows``, each with the nearest of ``others``."""
    told = []
    for row in sorted(rows)[:3]:
        nearest = difflib.get_close_matches(row, list(others), n=1, cutoff=0)
        told.append(f"{row}, nearest stored row {nearest[0]}" if nearest else row)
    return "; ".join(told)

"""Whether what was read of a list is all of it: only then may it replace a table."""

from array import array
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from .pages import Page

_FEW_KEYS = 50_000  # which a set may hold: 4 MB


class Keys:
    """Counts the distinct ones of many keys; of each 8 bytes are kept, a 64-bit hash."""

    def __init__(self) -> None:
        self._hashes = array("q")

    def add(self, keys: Iterable[Hashable]) -> int:
        """Notes the keys of a page. Returns how many distinct ones it has."""
        # Of their texts: to Python's hash -1 and -2 are the same, and so are other numbers.
        hashes = array("q", map(hash, map(repr, keys)))
        self._hashes += hashes
        return len(set(hashes))

    def distinct(self, *others: "Keys") -> int:
        """How many distinct keys there are in these and ``others``."""
        if sum(len(keys._hashes) for keys in (self, *others)) <= _FEW_KEYS:
            return len({*self._hashes}.union(*(keys._hashes for keys in others)))
        # A set of all would take ten times the memory.
        parts = [array("q") for _ in range(256)]
        for keys in (self, *others):
            for each in keys._hashes:
                parts[each & 255].append(each)
        return sum(len(set(part)) for part in parts)


@dataclass(repr=False)
class ReadProgress:
    """What was read of a list, from its first page to the last one so far."""

    keys: Keys = field(default_factory=Keys)
    totals: dict[int | None, None] = field(default_factory=dict)  # in the order they came
    seen: int = 0  # records
    skipped: int = 0  # of them, since they cannot be stored
    dropped: int = 0  # since the same page has a later one with their key
    on_pages: int = 0  # keys that are distinct on their page
    distinct: int = 0

    def note(self, page: Page, keys: Iterable[Hashable], skipped: int) -> None:
        """Adds a page: the keys of its rows, and how many records were skipped."""
        self.totals[page.total] = None
        self.seen += len(page.records)
        self.skipped += skipped
        self.on_pages += self.keys.add(keys)

    def end(self) -> None:
        self.distinct = self.keys.distinct()

    @property
    def total(self) -> int | None:
        """The records that the source says it has. None: it does not say, or it says several
        numbers."""
        [total, *others] = self.totals or [None]
        return None if others else total

    @property
    def moved(self) -> bool:
        """Whether the source told several totals."""
        return len(self.totals) > 1

    @property
    def miscount(self) -> int:
        """By how many the distinct keys differ from the source's total or, without one, how many
        keys stand on several pages."""
        total = self.total
        return (self.on_pages if total is None else total - self.skipped) - self.distinct

    @property
    def whole(self) -> bool:
        """Whether the distinct keys are as many as the source's total, and no page repeats a key
        of another's."""
        return not self.moved and self.miscount == 0 and self.on_pages == self.distinct

    @property
    def repeats(self) -> bool:
        """Whether several of the rows that were taken have the same key."""
        return self.distinct + self.skipped + self.dropped != self.seen

    def is_settled(self, known_miscount: int) -> bool:
        """Whether a second read would tell nothing new: the first is whole, or the source counts
        what it does not list, or stops counting, as it did at the last sync."""
        counts = self.miscount == known_miscount != 0 or max(self.miscount, known_miscount) < 0
        return self.whole or (counts and not self.moved)

    def counts(self) -> str:
        totals = " or ".join(str(total) for total in self.totals if total is not None)
        return f"{self.distinct + self.skipped} distinct of {totals or self.seen} records"


@dataclass(repr=False)
class Verdict:
    """What to do with the rows of one or two reads: store those of the ``last_only``, or of both;
    whether they are the ``whole`` list, whether the cursor ``moves``, and the ``reason`` why
    deletes were not looked for. ``miscount``: for the state."""

    last_only: bool
    whole: bool
    moves: bool = True
    reason: str = ""
    miscount: int = 0


_ONLY_STORED = (
    "is not the number of its records. The rows were stored and the cursor moved, but deletes "
    "were not looked for"
)


def judge(reads: list[ReadProgress]) -> Verdict:
    """The verdict on one read that is settled, or on two."""
    first, last = reads[0], reads[-1]
    if last.whole:
        return Verdict(last_only=True, whole=True)
    if first is last:
        reason = f"{last.counts()}, as at the last sync: the source's total {_ONLY_STORED}"
        return Verdict(last_only=True, whole=False, reason=reason, miscount=last.miscount)
    return _judge_two(first, last)


def _judge_two(first: ReadProgress, last: ReadProgress) -> Verdict:
    both = first.keys.distinct(last.keys)
    steady = not first.moved and first.totals.keys() == last.totals.keys()
    if steady and both + last.skipped == last.total:
        return Verdict(last_only=False, whole=True)
    counts = f"read twice, {first.counts()}, then {last.counts()}"
    if last.seen and not last.moved and both == first.distinct == last.distinct:
        reason = f"{counts}. Both had the same keys: the source's total {_ONLY_STORED}"
        return Verdict(last_only=False, whole=False, reason=reason, miscount=last.miscount)
    reason = (
        f"{counts}, {both} of both together: the list changes while it is read. The rows were "
        "stored, deletes were not looked for, and the next sync reads them again, since the "
        "cursor stays"
    )
    return Verdict(last_only=False, whole=False, moves=False, reason=reason)

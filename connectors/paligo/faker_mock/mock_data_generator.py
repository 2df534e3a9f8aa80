"""Made-up users, taxonomies and assignments, in both forms in which Paligo sends records.

    data = MockDataGenerator(seed=7).dataset(users=5, taxonomies=20, assignments=50)

Equal seeds make equal records, except for their times, which lie before the current time.
Assignments refer to users of the same set, and taxonomies to parents of the same set, so that the
hierarchy has no circle and no gap.
"""

import random
from datetime import datetime, timedelta, timezone
from typing import Any

from faker import Faker

Record = dict[str, Any]
SHAPES = ("live", "documented")
ROLES = ("admin", "author", "contributor", "reviewer")
STATUSES = ("pending", "in_progress", "completed")


class MockDataGenerator:
    """``shape``: "live" (what accounts send) or "documented" (the names of the README's columns).

    ``root``: the parent of a taxonomy at the top of the tree: None, "", 0 or an id that no
    taxonomy has. ``oldest``: how many days before now the first changes of assignments lie.
    """

    def __init__(
        self, seed: int = 1, shape: str = "live", root: Any = None, oldest: float = 700
    ) -> None:
        if shape not in SHAPES:
            raise ValueError(f"shape must be one of {', '.join(SHAPES)}")
        self.shape, self.root, self.oldest = shape, root, oldest
        self._random = random.Random(seed)
        self._faker = Faker(["en_GB", "sv_SE", "ja_JP"])
        self._faker.seed_instance(seed)
        self._number = 0

    def dataset(self, users: int, taxonomies: int, assignments: int) -> dict[str, list[Record]]:
        """So many records of each kind, by the name of their list."""
        people = [self.user() for _ in range(users)]
        tree: list[Record] = []
        for _ in range(taxonomies):
            tree.append(self.taxonomy(tree))
        self._random.shuffle(tree)  # a list has children before their parents, too
        work = [self.assignment(people) for _ in range(assignments)]
        return {"users": people, "taxonomies": tree, "assignments": work}

    def user(self) -> Record:
        name, email = self._faker.name(), self._faker.unique.email()
        role = self._random.choice(ROLES)
        record: Record = {"id": self._id("user"), "name": name, "email": email}
        if self.shape == "live":
            return {**record, "username": email.partition("@")[0], "type": role}
        created, updated = self._moments()
        return {
            **record,
            "role": role,
            "status": self._random.choice(("active", "inactive")),
            "created_at": iso(created),
            "updated_at": iso(updated),
            "last_login": self._random.choice((iso(updated), None)),
        }

    def taxonomy(self, others: list[Record]) -> Record:
        """A taxonomy below one of ``others`` or, about every sixth time, at the top."""
        above = self._random.choice(others) if others and self._random.random() > 1 / 6 else None
        parent = above["id"] if above else self.root
        title = f"{self._faker.word().title()} {self._number}"
        color = self._random.randint(0, 4)
        record: Record = {"id": self._id("taxonomy"), "title": title}
        if self.shape == "live":
            return {**record, "color": color, "parent": parent}
        created, updated = self._moments()
        return {
            **record,
            "color": f"#{color:06x}",
            "parent_id": parent,
            "level": above["level"] + 1 if above else 0,
            "path": f"{above['path']}/{title}" if above else title,
            "created_at": iso(created),
            "updated_at": iso(updated),
        }

    def assignment(self, users: list[Record], changed: datetime | None = None) -> Record:
        """An assignment among ``users`` that last changed at a given moment (None: at any)."""
        created, updated = self._moments(changed)
        due = created + timedelta(days=self._random.randint(1, 60))
        issuer = self._random.choice(users) if users else {"id": None, "name": None}
        assignee = self._random.choice(users) if users else issuer
        status = self._random.choice(STATUSES)
        text = self._faker.sentence(8)
        if self.shape == "live":
            return {
                "id": self._id("assignment"),
                "document_id": self._random.randint(1, 9_999),
                "type": self._random.choice(("review", "contribution")),
                "issuer": issuer["name"],
                "issuer_id": issuer["id"],
                "created_at": int(created.timestamp()),
                "message": self._random.choice((text, "")),
                "user_statuses": [{"user_id": assignee["id"], "status": status}],
                "assignees": {"users": [assignee["id"]], "groups": []},
                "lang": self._random.choice(("en", "sv")),
                "start_date": int(created.timestamp()),
                "end_date": self._random.choice((int(due.timestamp()), None)),
            }
        return {
            "id": self._id("assignment"),
            "title": self._faker.sentence(4),
            "description": text,
            "assignee_id": assignee["id"],
            "assigner_id": issuer["id"],
            "status": status,
            "priority": self._random.choice(("low", "high", "1", None)),
            "due_date": iso(due),
            "created_at": iso(created),
            "updated_at": iso(updated),
            "completed_at": iso(updated) if status == "completed" else None,
        }

    def _id(self, kind: str) -> Any:
        self._number += 1
        return self._number if self.shape == "live" else f"{kind}-{self._number:04d}"

    def _moments(self, changed: datetime | None = None) -> tuple[datetime, datetime]:
        """When something was created, and when it last changed."""
        days = self._random.uniform(1, self.oldest)
        changed = changed or datetime.now(timezone.utc) - timedelta(days=days)
        return changed - timedelta(days=self._random.uniform(0, 300)), changed


def iso(moment: datetime) -> str:
    """A time in the documented form: UTC, to the millisecond."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"

"""Whether the rows of a window are what they were at the last sync. The server counts them and
adds up their hashes, which costs less than to send them."""

import base64
import hashlib

from fivetran_connector_sdk import Logging

from shared.errors import TransientError

from .errors import StatementError
from .query import Plan
from .session import Session

# The server does not know a function, or not this use of it.
_UNKNOWN = (102, 156, 174, 189, 195, 10763)


class WindowProbe:
    """Asks for windows and their fingerprints. Usable from several threads, each with its own
    session."""

    def __init__(self) -> None:
        # What is hashed: whole rows or, for Azure Synapse, which has no checksum of them, their
        # keys and moments alone. What the server does not know is not tried again.
        self._whole_rows = [True, False]

    def greatest(self, session: Session, plan: Plan, start: str | None) -> str | None:
        """The greatest moment of the rows from ``start`` on (None: of all), in the form of a
        position. None if there is none, or the server does not tell it. Raises SourceError for a
        login that is refused."""
        try:
            found = session.rows(*plan.greatest_statement(start))
        except (StatementError, TransientError) as error:
            _note(session, plan, error)
            return None
        return found[0][0] if len(found) == 1 else None

    def fingerprint(
        self, session: Session, plan: Plan, start: str, end: str | None = None
    ) -> str | None:
        """64 bits that tell the rows from ``start`` to ``end`` (None: all later ones), both
        included, from others: a hash of their number and of the sum of their hashes. None if the
        server does not tell it: the rows are read then. Raises SourceError for a login that is
        refused."""
        while self._whole_rows:
            whole_rows = self._whole_rows[0]
            statement = plan.window_statement(start, end, whole_rows=whole_rows)
            try:
                found = session.rows(*statement)
            except (StatementError, TransientError) as error:
                _note(session, plan, error)
                if not isinstance(error, StatementError) or error.number not in _UNKNOWN:
                    return None
                self._whole_rows = [other for other in self._whole_rows if other != whole_rows]
            else:
                if len(found) != 1:
                    return None
                rows, total = found[0]
                digest = hashlib.blake2b(f"{rows} {total}".encode(), digest_size=8).digest()
                return base64.b64encode(digest).decode().rstrip("=")
        return None


def _note(session: Session, plan: Plan, error: StatementError | TransientError) -> None:
    """Logs why rows are not compared. Raises ``error`` if it is of the login."""
    if session.unreachable and isinstance(error, StatementError):
        raise error
    Logging.info(f"{plan.table.label}: its last rows are not compared: {error}")

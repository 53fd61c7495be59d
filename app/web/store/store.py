"""The store as a whole, opened."""

from __future__ import annotations

from pathlib import Path

from app.contract.conversations import NewTurn
from app.web.store.conversations import Conversations
from app.web.store.database import Database
from app.web.store.messages import Messages
from app.web.store.schema import bring_up_to_date
from app.web.store.transfer import Transfer
from app.web.store.turns import Begun, begin_turn


class Store:
    """Everything that is kept of conversations. Only one process may have a file open."""

    def __init__(self, path: Path) -> None:
        """Opens the file; what an earlier process left half-written is marked.

        Raises:
            ApiError: it can't be used.
        """
        bring_up_to_date(path)
        self._database = Database(path)
        self.conversations = Conversations(self._database)
        self.messages = Messages(self._database)
        self.transfer = Transfer(self._database)
        try:
            self.messages.interrupt_all()
        except BaseException:
            self.close()
            raise

    def begin_turn(self, conversation_id: str, new: NewTurn, *, running: bool) -> Begun:
        """See `begin.begin_turn`."""
        return begin_turn(self._database, conversation_id, new, running=running)

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

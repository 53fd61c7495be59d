"""The opened store."""

from __future__ import annotations

from pathlib import Path

from app.contract.conversations import NewTurn
from app.web.store.conversations import Conversations
from app.web.store.database import Database
from app.web.store.importer import Importer
from app.web.store.messages import Messages
from app.web.store.schema import migrate
from app.web.store.turns import StartedTurn, begin_turn


class Store:
    """All stored conversations. Only one process may have the file open."""

    def __init__(self, path: Path) -> None:
        """Opens the file and marks the answers that an earlier process left unfinished.

        Raises:
            StoreError: the file can't be used.
        """
        migrate(path)
        self._database = Database(path)
        self.conversations = Conversations(self._database)
        self.messages = Messages(self._database)
        self.importer = Importer(self._database)
        try:
            self.messages.interrupt_all()
        except BaseException:
            self.close()
            raise

    def begin_turn(self, conversation_id: str, new: NewTurn, *, running: bool) -> StartedTurn:
        """Stores a question and an empty answer. Raises StoreError as `turns.begin_turn` does."""
        return begin_turn(self._database, conversation_id, new, running=running)

    def close(self) -> None:
        """Closes the file."""
        self._database.close()

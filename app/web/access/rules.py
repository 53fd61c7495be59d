"""Access rules: one line for each endpoint. An endpoint without a rule is denied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Rule = Literal["public", "member", "session"]
"""`public`: everybody. `member`: clients that send the key or are signed in. `session`: only those signed in."""

RULES: Mapping[str, Rule] = {
    "health.live": "public",
    "health.ready": "public",
    "page.index": "public",
    "page.asset": "public",
    "page.top_level_file": "public",
    "session.show": "public",
    "session.sign_in": "public",
    "session.sign_out": "session",
    "status.status": "member",
    "status.plan": "member",
    "openai.list_models": "member",
    "openai.get_model": "member",
    "openai.chat_completions": "member",
    "invocations.invocations": "member",
    "tokenize.tokenize": "member",
    "tokenize.detokenize": "member",
    "metrics.metrics": "member",
    "conversations.page": "member",
    "conversations.create": "member",
    "conversations.show": "member",
    "conversations.change": "member",
    "conversations.delete": "member",
    "conversations.export": "member",
    "conversations.export_all": "member",
    "conversations.import_file": "member",
    "turns.start": "member",
    "turns.follow": "member",
    "turns.stop": "member",
    "turns.delete": "member",
    "openapi.openapi": "member",
}

LONG_RUNNING = frozenset(
    {
        "openai.chat_completions",
        "invocations.invocations",
        "tokenize.tokenize",
        "tokenize.detokenize",
        "turns.follow",
    }
)
"""Endpoints that occupy a thread while the model works. A client gets a limited number at once."""

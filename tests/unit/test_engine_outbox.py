"""Replies between two threads."""

from __future__ import annotations

import select

from app.contract.wire import Accepted, Delta, Finished, TokenChance, TokenLogprob, ToolCallDelta
from app.engine.outbox import Outbox


def ready(outbox: Outbox) -> bool:
    return bool(select.select([outbox], [], [], 0)[0])


def test_deltas_that_wait_are_joined_in_order() -> None:
    outbox = Outbox()
    assert not ready(outbox)
    for reply in (Accepted(3), Delta("a", 1), Delta("b", 2), Finished("stop", 3, 4)):
        outbox.put(reply)
    assert ready(outbox)
    assert outbox.take() == (Accepted(3), Delta("ab", 3), Finished("stop", 3, 4))
    assert not ready(outbox)
    outbox.put(Delta("c", 1))
    assert outbox.take() == (Delta("c", 1),)
    outbox.close()


def test_each_token_keeps_its_log_probability() -> None:
    outbox = Outbox()
    tokens = [TokenLogprob(TokenChance(text, tuple(text.encode()), -1.0)) for text in "ab"]
    for token in tokens:
        outbox.put(Delta(token.chosen.text, 1, logprobs=(token,)))
    assert outbox.take() == (Delta("ab", 2, logprobs=tuple(tokens)),)
    outbox.close()


def test_a_closed_box_drops_what_comes() -> None:
    outbox = Outbox()
    outbox.close()
    outbox.close()
    outbox.put(Delta("late", 1))
    assert outbox.take() == ()


def test_deltas_of_several_kinds_keep_their_order() -> None:
    outbox = Outbox()
    call = (ToolCallDelta(0, "call_1", "f"),)
    for reply in (Delta("", 1, "a"), Delta("", 1, "b"), Delta("c", 2), Delta("", 3, tool_calls=call), Delta("d", 1)):
        outbox.put(reply)
    assert outbox.take() == (Delta("", 2, "ab"), Delta("c", 2), Delta("", 3, tool_calls=call), Delta("d", 1))
    outbox.put(Delta("", 1, tool_calls=call))
    outbox.put(Delta("", 0, tool_calls=(ToolCallDelta(0, arguments="{}"),)))
    assert outbox.take() == (Delta("", 1, tool_calls=(*call, ToolCallDelta(0, arguments="{}"))),)
    outbox.close()

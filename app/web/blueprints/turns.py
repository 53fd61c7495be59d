"""Turns: an answer is asked for, read while it is written, stopped; messages are deleted."""

from __future__ import annotations

import re

from flask import Blueprint, Response, jsonify, request

from app.contract.codec import to_json
from app.contract.conversations import TurnEvent
from app.contract.limits import MAX_SEQ
from app.web.conversations.event_stream import events, one_event
from app.web.conversations.request import read_new_turn
from app.web.http.errors import bad_field
from app.web.http.json_body import read_object
from app.web.services import services

bp = Blueprint("turns", __name__, url_prefix="/api")

_STREAM_HEADERS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}


@bp.post("/conversations/<conversation_id>/turns")
def start(conversation_id: str) -> Response:
    """Stores the question, begins the answer; asked again with the same ids, both as they are now."""
    new = read_new_turn(read_object(request))
    turn = services().turns.start(conversation_id, new, request.remote_addr or "")
    response = jsonify(to_json(turn))
    response.status_code = 201
    return response


@bp.get("/turns/<message_id>/events")
def follow(message_id: str) -> Response:
    """The answer as it grows. It goes on when nobody reads, and can be read again behind any event."""
    shared, after = services(), _after()
    turn = shared.turns.running(message_id)
    if turn is None:
        message = shared.turns.now(shared.storage.open().messages.get(message_id))
        return _stream(one_event(TurnEvent(message.seq, message=message)))
    shared.readers.enter()
    response = _stream(events(turn, after, request.environ.get("gunicorn.socket")))
    # Not in the generator: closed before its first step, it would never get to clean up.
    response.call_on_close(shared.readers.leave)
    return response


@bp.post("/turns/<message_id>/stop")
def stop(message_id: str) -> Response:
    """Ends the answer where it is."""
    return jsonify(to_json(services().turns.stop(message_id)))


@bp.delete("/messages/<message_id>")
def delete(message_id: str) -> Response:
    """Deletes a message and all that follows it."""
    services().turns.delete_message(message_id)
    return Response(status=204)


def _after() -> int:
    given = request.args.get("after", "0")
    if not re.fullmatch("[0-9]{1,20}", given) or int(given) > MAX_SEQ:
        raise bad_field("after", "should be the number of an event")
    return int(given)


def _stream(body: object) -> Response:
    return Response(body, mimetype="text/event-stream", headers=_STREAM_HEADERS)  # type: ignore[arg-type]

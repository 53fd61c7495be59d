"""Turns: start an answer, read it while it is written, stop it; delete messages."""

from __future__ import annotations

import re

from flask import Blueprint, Response, jsonify, request

from app.contract.codec import to_json
from app.contract.conversations import TurnEvent
from app.contract.limits import MAX_SEQ
from app.web.conversations.event_stream import encode_event, events
from app.web.conversations.request import read_new_turn
from app.web.http.errors import bad_field
from app.web.http.json_body import read_object
from app.web.services import services

bp = Blueprint("turns", __name__, url_prefix="/api")

_STREAM_HEADERS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}


@bp.post("/conversations/<conversation_id>/turns")
def start(conversation_id: str) -> Response:
    """Stores the question and starts the answer. The same ids again return both as they are now."""
    new = read_new_turn(read_object(request))
    turn = services().turns.start(conversation_id, new, request.remote_addr or "")
    response = jsonify(to_json(turn))
    response.status_code = 201
    return response


@bp.get("/turns/<message_id>/events")
def follow(message_id: str) -> Response:
    """Streams the answer as it grows. It goes on without readers, and can be read again from any event on."""
    shared, after = services(), _after()
    turn = shared.turns.running(message_id)
    if turn is None:
        message = shared.turns.current(shared.store.messages.get(message_id))
        return _stream(encode_event(TurnEvent(message.seq, message=message)))
    shared.event_streams.acquire()
    response = _stream(events(turn, after, request.environ.get("gunicorn.socket")))
    # Not in the generator: if it is closed before its first step, its `finally` never runs.
    response.call_on_close(shared.event_streams.release)
    return response


@bp.post("/turns/<message_id>/stop")
def stop(message_id: str) -> Response:
    """Stops the answer."""
    return jsonify(to_json(services().turns.stop(message_id)))


@bp.delete("/messages/<message_id>")
def delete(message_id: str) -> Response:
    """Deletes a message and all messages below it."""
    services().turns.delete_message(message_id)
    return Response(status=204)


def _after() -> int:
    text = request.args.get("after", "0")
    if not re.fullmatch("[0-9]{1,20}", text) or int(text) > MAX_SEQ:
        raise bad_field("after", "should be the number of an event")
    return int(text)


def _stream(body: object) -> Response:
    return Response(body, mimetype="text/event-stream", headers=_STREAM_HEADERS)  # type: ignore[arg-type]

"""Request and responses of each endpoint. A test fails if a route has no entry here."""

from __future__ import annotations

from app.web.openapi.conversations import CONVERSATIONS
from app.web.openapi.operation import EVENTS, JSON, Operation, Response, answers

_MODEL_ERRORS = (400, 404, 408, 413, 415, 429, 500, 503)


_CHAT = {
    200: Response(
        "The answer. With stream: server-sent events with chunks, an Error if it fails, and `[DONE]` at the end.",
        {JSON: "ChatCompletion", EVENTS: {"type": "string", "description": "Each event is a ChatCompletionChunk."}},
    )
}
_READINESS = {
    200: Response("The model is ready.", {JSON: "Readiness"}),
    503: Response("The model is not ready.", {JSON: "Readiness"}),
}
_FILE = {200: Response("The file.", {"*/*": {}}), 404: Response("Not found.", {"text/plain": {}})}

OPERATIONS: dict[str, Operation] = {
    "health.live": Operation("Whether the web service runs", answers("Live", "It runs.")),
    "health.ready": Operation("Whether the model is ready", _READINESS),
    "status.status": Operation("The service's status", answers("Status", "The current status.")),
    "status.plan": Operation("The current plan", answers("Plan", "The chosen rung first."), (503,)),
    "openai.list_models": Operation("The served model, in a list of one", answers("ServedModels", "The list.")),
    "openai.get_model": Operation("The served model", answers("ServedModel", "The model."), (404,)),
    "openai.chat_completions": Operation("One assistant turn", _CHAT, _MODEL_ERRORS, "ChatBody"),
    "invocations.invocations": Operation("As POST /v1/chat/completions", _CHAT, _MODEL_ERRORS, "ChatBody"),
    "tokenize.tokenize": Operation(
        "The exact prompt ids of a conversation or a text",
        answers("Tokens", "The ids."),
        _MODEL_ERRORS,
        "TokenizeBody",
    ),
    "tokenize.detokenize": Operation(
        "The text of ids", answers("Prompt", "The text, control tokens included."), _MODEL_ERRORS, "DetokenizeBody"
    ),
    "metrics.metrics": Operation(
        "Metrics for Prometheus", {200: Response("Text format 0.0.4.", {"text/plain": {"type": "string"}})}
    ),
    "openapi.openapi": Operation("This description", {200: Response("OpenAPI 3.1.", {JSON: {"type": "object"}})}),
    "page.index": Operation("The web client", {200: Response("The page.", {"text/html": {"type": "string"}})}),
    "page.asset": Operation("A file of the web client", _FILE),
    "page.top_level_file": Operation("A file beside the web client's page", {**_FILE, 204: Response("No icon.", {})}),
    "session.show": Operation("Whether this browser is signed in", answers("Session", "The session.")),
    "session.sign_in": Operation(
        "Sign in, for browsers",
        answers("Session", "Signed in; sets a cookie."),
        (400, 401, 403, 411, 413, 415, 429),
        "SignInInput",
    ),
    "session.sign_out": Operation("Sign out", {204: Response("The session is over.", {})}),
    **CONVERSATIONS,
}
"""By Flask's name of the endpoint."""

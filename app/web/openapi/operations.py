"""What each endpoint takes and answers. A route without an entry here is not described, and a test says so."""

from __future__ import annotations

from app.web.openapi.conversations import CONVERSATIONS
from app.web.openapi.operation import EVENTS, JSON, Operation, Reply, answers

_MODEL_ERRORS = (400, 404, 408, 413, 415, 429, 500, 503)


_CHAT = {
    200: Reply(
        "The answer; with stream, server-sent events: chunks, an Error where it breaks, and `[DONE]` at the end.",
        {JSON: "ChatCompletion", EVENTS: {"type": "string", "description": "Each event is a ChatCompletionChunk."}},
    )
}
_READINESS = {
    200: Reply("The model answers.", {JSON: "Readiness"}),
    503: Reply("It does not yet, or not any more.", {JSON: "Readiness"}),
}
_FILE = {200: Reply("The file.", {"*/*": {}}), 404: Reply("There is none of this name.", {"text/plain": {}})}

OPERATIONS: dict[str, Operation] = {
    "health.live": Operation("Whether the web service runs", answers("Live", "It does.")),
    "health.ready": Operation("Whether the model answers", _READINESS),
    "status.status": Operation("What the page shows", answers("Status", "The present state.")),
    "status.plan": Operation("The present plan", answers("Plan", "The chosen rung first."), (503,)),
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
        "The text of ids", answers("Prompt", "The text, control tokens written out."), _MODEL_ERRORS, "DetokenizeBody"
    ),
    "metrics.metrics": Operation(
        "The service's numbers for Prometheus", {200: Reply("Text format 0.0.4.", {"text/plain": {"type": "string"}})}
    ),
    "openapi.openapi": Operation("This description", {200: Reply("OpenAPI 3.1.", {JSON: {"type": "object"}})}),
    "page.index": Operation("The web client", {200: Reply("The page.", {"text/html": {"type": "string"}})}),
    "page.asset": Operation("A file of the web client", _FILE),
    "page.top_level_file": Operation(
        "A file beside the web client's page", {**_FILE, 204: Reply("No icon of this name.", {})}
    ),
    "session.show": Operation("Whether this browser is signed in", answers("Session", "How it stands.")),
    "session.sign_in": Operation(
        "Sign in, for browsers",
        answers("Session", "Signed in; a cookie comes with it."),
        (400, 401, 403, 411, 413, 415, 429),
        "SignInInput",
    ),
    "session.sign_out": Operation("Sign out", {204: Reply("The session is over.", {})}),
    **CONVERSATIONS,
}
"""By endpoint, as Flask names it."""

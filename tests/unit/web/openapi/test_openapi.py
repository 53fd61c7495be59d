"""/openapi.json describes every route and nothing else, and says of bodies and answers what the service does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st

from app.contract.codec import to_json, write_atomically
from app.contract.wire import Accepted, Delta, Finished, ToolCallDelta
from app.web.access.rules import RULES
from app.web.chat import request
from app.web.factory import create_app
from app.web.openapi.operations import OPERATIONS
from tests.processes.web import write_config, write_status
from tests.unit.web.http.test_hostile import ANYTHING, BODY, HELLO
from tests.unit.web.support import CHAT, Web, data_events


@pytest.fixture(scope="module")
def document(module_web: Web) -> dict[str, Any]:
    answer = module_web.client.get("/openapi.json")
    assert (answer.status_code, answer.mimetype) == (200, "application/json")
    return dict(answer.get_json())


def operations(app: Flask) -> Iterator[tuple[str, str, str]]:
    """Path as OpenAPI writes it, method, endpoint."""
    for rule in app.url_map.iter_rules():
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            yield re.sub(r"<(\w+:)?(\w+)>", r"{\2}", rule.rule), method.lower(), str(rule.endpoint)


def is_valid(document: dict[str, Any], component: str, value: Any) -> bool:
    schema = {"$ref": f"#/components/schemas/{component}", "components": document["components"]}
    return jsonschema_rs.Draft202012Validator(schema).is_valid(value)


def test_every_route_is_described_and_nothing_else(module_web: Web, document: Any) -> None:
    known = list(operations(module_web.app))
    described = {(path, method) for path, item in document["paths"].items() for method in item}
    assert described == {(path, method) for path, method, _ in known}
    assert set(OPERATIONS) == {endpoint for _, _, endpoint in known}


def test_references_lead_somewhere_and_schemas_are_schemas(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert named <= set(schemas)
    for name, schema in schemas.items():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
        assert is_valid(document, name, {"unlikely": [None]}) in (True, False)
    described = [item for path in document["paths"].values() for item in path.values()]
    ids = [operation["operationId"] for operation in described]
    assert len(ids) == len(set(ids)) and all(operation["summary"] for operation in described)


def test_what_needs_the_key_says_so(tmp_path: Path, document: dict[str, Any]) -> None:
    write_status(tmp_path, "ready")
    config = json.loads(write_config(tmp_path, tmp_path / "engine.sock").read_text())
    (tmp_path / "key").write_text("k" * 40)
    files = {"KEY_FILE": str(tmp_path / "key"), "SESSIONS_FILE": str(tmp_path / "sessions.json")}
    write_atomically(tmp_path / "config.json", {**config, **files})
    app = create_app(tmp_path / "config.json")
    with app.test_client() as client:
        assert client.get("/openapi.json").status_code == 401
        guarded = client.get("/openapi.json", headers={"Authorization": f"Bearer {'k' * 40}"}).get_json()
    schemes = guarded["components"]["securitySchemes"]
    assert (schemes["key"]["scheme"], schemes["session"]["in"]) == ("bearer", "cookie")
    for path, method, endpoint in operations(app):
        described = guarded["paths"][path][method]
        assert (described["security"] == []) == (RULES[endpoint] == "public"), path
        assert ("401" in described["responses"]) >= (RULES[endpoint] != "public"), path
    assert all(one["security"] == [] for item in document["paths"].values() for one in item.values())


def test_the_chat_body_names_every_field_that_is_known(document: dict[str, Any]) -> None:
    known = {*request.READ_FIELDS, *request.IGNORED_FIELDS, *request.NEUTRAL_VALUES}
    assert set(document["components"]["schemas"]["ChatBody"]["properties"]) == known


@pytest.mark.parametrize("name", request.RANGES)
def test_numbers_have_the_bounds_that_are_checked(module_web: Web, document: dict[str, Any], name: str) -> None:
    bounds = request.RANGES[name]
    beyond = bounds.high + 1 if bounds.whole else bounds.high + 0.001
    for value in (bounds.low, bounds.high, beyond, bounds.low - 1, None, "1", True):
        body = {"messages": HELLO, name: value}
        with module_web.client.post(CHAT, json=body) as answer:
            assert (answer.status_code == 200) == is_valid(document, "ChatBody", body), (name, value, answer.text)


BODIES = {CHAT: "ChatBody", "/tokenize": "TokenizeBody", "/detokenize": "DetokenizeBody"}


@settings(max_examples=300, deadline=None)
@given(path=st.sampled_from(list(BODIES)), body=BODY | ANYTHING)
def test_what_is_taken_is_described(module_web: Web, document: dict[str, Any], path: str, body: Any) -> None:
    with module_web.client.post(path, data=json.dumps(body), content_type="application/json") as answer:
        assert answer.status_code != 200 or is_valid(document, BODIES[path], body)
        assert answer.status_code == 200 or is_valid(document, "Error", answer.get_json())


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


@pytest.mark.parametrize(
    "body",
    [
        {"messages": HELLO, "stop": ["a"], "tools": TOOLS, "tool_choice": "required", "stream": None, "n": 1},
        {"messages": HELLO, "tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"messages": [*HELLO, {"role": "assistant", "content": None, "tool_calls": [CALL], "refusal": None}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}], "metadata": {"a": "b"}},
        {"messages": HELLO, "chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "low"},
        {"messages": HELLO, "stream": True, "stream_options": {"include_usage": True}, "user": "me"},
    ],
)
def test_common_bodies_are_taken_and_described(module_web: Web, document: dict[str, Any], body: Any) -> None:
    with module_web.client.post(CHAT, json=body) as answer:
        assert answer.status_code == 200 and is_valid(document, "ChatBody", body)


def test_answers_are_as_described(module_web: Web, document: dict[str, Any]) -> None:
    call = ToolCallDelta(0, "call_a", "f", "{}")
    replies = [Accepted(3), Delta("", 1, "Hm."), Delta("a", 1), Delta("", 1, "", (call,)), Finished("tool_calls", 3, 3)]
    script = f"script {json.dumps([to_json(reply) for reply in replies])}"
    for text in (script, "echo a b"):
        body = {"messages": [{"role": "user", "content": text}]}
        with module_web.client.post(CHAT, json=body) as answer:
            assert is_valid(document, "ChatCompletion", answer.get_json())
        with module_web.client.post(
            CHAT, json={**body, "stream": True, "stream_options": {"include_usage": True}}
        ) as answer:
            assert all(is_valid(document, "ChatCompletionChunk", event) for event in data_events(answer.data))
    for path, component in (
        ("/v1/models", "ServedModels"), ("/health/live", "Live"), ("/health/ready", "Readiness"),
        ("/api/status", "Status"), ("/api/plan", "Error"), ("/api/session", "Session"),
    ):  # fmt: skip
        assert is_valid(document, component, module_web.client.get(path).get_json()), path

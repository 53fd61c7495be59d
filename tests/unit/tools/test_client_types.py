"""The web client's types are what the contract says."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from app.contract.plan import Precision, Rung, Text
from app.contract.status import Status
from tools import client_types


def test_the_committed_file_is_current() -> None:
    assert client_types.main(["--check"]) == 0


def test_check_notices_a_stale_and_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "contract.ts"
    assert client_types.main(["--check", "--target", str(target)]) == 1
    assert client_types.main(["--target", str(target)]) == 0
    assert client_types.main(["--check", "--target", str(target)]) == 0
    target.write_text(target.read_text(encoding="utf-8").replace("need_bytes: number", "need_bytes: string"))
    assert client_types.main(["--check", "--target", str(target)]) == 1
    assert "python -m tools.client_types" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (int, "number"),
        (float | None, "number | null"),
        (tuple[Text, ...], "readonly Text[]"),
        (tuple[int | None, ...], "readonly (number | null)[]"),
        (dict[str, str], "Readonly<Record<string, string>>"),
        (Precision, "Precision"),
        (Rung | None, "Rung | null"),
    ],
)
def test_types(kind: Any, expected: str) -> None:
    assert client_types.type_name(kind) == expected


def test_an_unknown_annotation_is_refused() -> None:
    with pytest.raises(TypeError, match="bytes"):
        client_types.type_name(bytes)


def test_every_field_of_the_status_is_there() -> None:
    text = client_types.render()
    for field in dataclasses.fields(Status):
        assert f"  readonly {field.name}: " in text
    assert "export type Phase = 'starting' | " in text
    assert "short_bytes" not in text, "computed properties do not travel"

"""Fixtures of the loader's tests."""

from __future__ import annotations

import pytest

from app.engine.kernels import bf16_linear
from app.engine.kernels.cpu_kind import FORM_CHANGES


@pytest.fixture
def plain_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 products are torch's own, as transformers has them, also where the CPU has no bf16."""
    monkeypatch.setattr(bf16_linear, "form_changes", lambda: FORM_CHANGES["bf16"])

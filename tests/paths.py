"""Folders that tests read from."""

from __future__ import annotations

from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
"""The repository."""
FIXTURES = TOP / "tests" / "fixtures"
SHARED = TOP.parent / "shared" / "fixtures"
"""Published tokenizer files; missing elsewhere than on the project's own machines."""

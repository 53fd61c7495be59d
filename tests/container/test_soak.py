"""Five minutes of mixed load in a container with the planned memory; `python -m tests.bench.soak` takes its time."""

from __future__ import annotations

import logging

import pytest

from tests.bench.soak import Model, soak
from tests.container.lab import Containers

log = logging.getLogger(__name__)


@pytest.mark.timeout(1500)
def test_nothing_grows_leaks_or_stays_without_an_end(containers: Containers) -> None:
    report = soak(containers, Model(), minutes=5)
    log.info("%s", "\n".join(report.lines))
    assert not report.wrong, "\n".join([*report.wrong, "", *report.lines])

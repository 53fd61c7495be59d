"""python -m app.engine --config PATH/config.json --events-fd N --lifeline-fd M"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from app.contract import exits, lifeline
from app.contract.config import read_config
from app.contract.status import EngineDown
from app.engine.errors import EngineError, OutOfMemory, is_memory_error
from app.engine.lifecycle import Service
from app.engine.runtime import process
from app.engine.runtime.events import EventWriter

log = logging.getLogger("app.engine")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = _parse(arguments)
    # SIGTERM is blocked before any thread starts; until there is a service, it ends the process.
    service = Service(EventWriter(options.events_fd))
    process.on_terminate(service.terminate)
    lifeline.watch(options.lifeline_fd)
    process.tune_allocator()
    process.share_cores()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s engine %(levelname)s %(message)s")
    logging.captureWarnings(True)
    try:
        service.run(read_config(options.config))
    except Exception as error:
        return _report_failure(error, service)
    return exits.OK


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m app.engine")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--events-fd", type=int, required=True, help="events are written to it, one JSON object a line")
    parser.add_argument("--lifeline-fd", type=int, required=True, help="this process ends at its end of file")
    return parser.parse_args(arguments)


def _report_failure(error: Exception, service: Service) -> int:
    """Sends the reason to the supervisor; returns the exit code for it."""
    if is_memory_error(error):
        error = OutOfMemory(f"{service.memory_text()}: {' '.join(str(error).split())}")
    if isinstance(error, EngineError):
        log.error("%s", error)
        service.events.send(EngineDown(error.cause, str(error)))
        return error.exit_code
    log.exception("the engine failed", exc_info=error)
    service.events.send(EngineDown("crashed", f"{type(error).__name__}: {' '.join(str(error).split())}"))
    return 1


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    # Threads that wait on sockets are daemons, and torch's exit handlers can take seconds: nothing is left to save.
    sys.stderr.flush()
    os._exit(code)

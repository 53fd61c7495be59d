"""`python -m app.web`: started by the supervisor, with a listening socket and a lifeline as inherited descriptors."""

from __future__ import annotations

import argparse
import logging
import signal
from pathlib import Path

from app.web.monitoring.request_log import LogFormatter
from app.web.wsgi.server import ServerOptions, WebServer


def main() -> None:
    """Serves until SIGTERM."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    options = parse_arguments()
    handler = logging.StreamHandler()
    handler.setFormatter(LogFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    WebServer(options).run()


def parse_arguments(arguments: list[str] | None = None) -> ServerOptions:
    """Reads the command line. argparse exits with 2 if it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m app.web", description="Berth's web service")
    parser.add_argument("--config", type=Path, required=True, help="config.json")
    parser.add_argument("--listen-fd", type=int, required=True, help="a listening socket, inherited")
    parser.add_argument("--lifeline-fd", type=int, required=True, help="a pipe whose end of file ends this service")
    parser.add_argument("--threads", type=int, required=True, help="requests served at the same time")
    parser.add_argument("--run-dir", type=Path, required=True, help="for gunicorn's heartbeat file")
    parser.add_argument("--drain-seconds", type=int, required=True, help="time for running answers after SIGTERM")
    options = parser.parse_args(arguments)
    return ServerOptions(
        config_path=options.config,
        listen_fd=options.listen_fd,
        lifeline_fd=options.lifeline_fd,
        threads=options.threads,
        run_dir=options.run_dir,
        drain_seconds=options.drain_seconds,
    )


if __name__ == "__main__":
    main()

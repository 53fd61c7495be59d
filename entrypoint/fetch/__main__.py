"""python -m entrypoint.fetch --job JOB.json --events-fd N --lifeline-fd M; the token comes in HF_TOKEN."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import sys
from pathlib import Path

from huggingface_hub import get_token

from app.contract import exits, lifeline
from app.contract.codec import from_json
from app.contract.plan import Refusal
from app.contract.status import FetchFailed
from entrypoint.fetch.job import Job
from entrypoint.fetch.meter import Meter
from entrypoint.fetch.transfer import NO_ROOM, FetchError, Patience, Transfer
from entrypoint.hub import messages
from entrypoint.hub.cache import HubCache
from entrypoint.hub.client import Hub
from entrypoint.hub.listing import HubModel
from entrypoint.paths import existing


def main(arguments: list[str]) -> int:
    """Downloads a job's files; returns the exit code."""
    options = _parser().parse_args(arguments)
    lifeline.watch(options.lifeline_fd)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor's: it sends SIGTERM
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    job = from_json(Job, json.loads(Path(options.job).read_text(encoding="utf-8")), "job")
    meter = Meter(options.events_fd, job.repo, job.total_bytes)
    try:
        fetch(job, meter, Patience(options.stall_seconds, options.give_up_seconds))
    except FetchError as error:
        meter.tell()
        meter.send(FetchFailed(error.refusal))
        return exits.FETCH_FAILED
    meter.tell()
    return exits.OK


def fetch(job: Job, meter: Meter, patience: Patience) -> None:
    """Brings all files and notes what the revision means. Raises FetchError."""
    cache = HubCache.of(Path(job.hf_home), job.repo)
    token = get_token() if job.with_token else None
    model = HubModel(job.repo, job.revision)
    transfer = Transfer(
        Hub(job.endpoint, token),
        job,
        meter,
        patience,
        lambda error: messages.refusal(error, job.endpoint, model, token is not None),
    )
    try:
        _check_room(job, cache)
        meter.start()
        for file in job.files:
            transfer.bring(file)
        cache.write_ref(job.revision, job.commit)
    except OSError as error:
        raise FetchError(_disk_refusal(error, cache.folder, meter)) from error


def _check_room(job: Job, cache: HubCache) -> None:
    """There must be room for all that is still to come."""
    cache.folder.mkdir(parents=True, exist_ok=True)
    need = sum(max(0, file.size - cache.there(file.etag)) for file in job.files)
    free = shutil.disk_usage(cache.folder).free
    if need > free:
        raise FetchError(messages.disk_short(Path(job.hf_home), need, free))


def _disk_refusal(error: OSError, folder: Path, meter: Meter) -> Refusal:
    if error.errno in NO_ROOM:
        return messages.disk_full(folder, meter.done_bytes, meter.total_bytes, error.strerror or "no room")
    place = existing(folder)
    return messages.unwritable(place, error.strerror or str(error), place.stat().st_uid, os.geteuid())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m entrypoint.fetch")
    parser.add_argument("--job", required=True, help="the job's JSON file")
    parser.add_argument("--events-fd", type=int, required=True, help="where events are written, one JSON object a line")
    parser.add_argument("--lifeline-fd", type=int, required=True, help="its end of file ends this process")
    parser.add_argument("--stall-seconds", type=float, default=Patience.stall_seconds)
    parser.add_argument("--give-up-seconds", type=float, default=Patience.give_up_seconds)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""python -m entrypoint.fetch --job JOB.json --events-fd N --lifeline-fd M; the token comes in HF_TOKEN."""

from __future__ import annotations

import argparse
import json
import logging
import shutil
import signal
import sys
from pathlib import Path

from huggingface_hub import get_token

from app.contract import exits, lifeline
from app.contract.codec import from_json
from app.contract.status import FetchFailed
from entrypoint.fetch.job import Job
from entrypoint.fetch.meter import ProgressMeter
from entrypoint.fetch.transfer import Downloader, FetchError, Patience
from entrypoint.hub.cache import HubCache
from entrypoint.hub.client import Hub
from entrypoint.hub.listing import HubModel
from entrypoint.hub.refusals import disk_refusal, hub_refusal, no_room


def main(arguments: list[str]) -> int:
    """Downloads a job's files; returns the exit code."""
    options = _parser().parse_args(arguments)
    lifeline.watch(options.lifeline_fd)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor's: it sends SIGTERM
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    job = from_json(Job, json.loads(Path(options.job).read_text(encoding="utf-8")), "job")
    meter = ProgressMeter(options.events_fd, job.repo, job.total_bytes)
    try:
        fetch(job, meter, Patience(options.stall_seconds, options.give_up_seconds))
    except FetchError as error:
        meter.report()
        meter.send(FetchFailed(error.refusal))
        return exits.FETCH_FAILED
    meter.report()
    return exits.OK


def fetch(job: Job, meter: ProgressMeter, patience: Patience) -> None:
    """Downloads all files and records the commit of the revision. Raises FetchError."""
    cache = HubCache.of(Path(job.hf_home), job.repo)
    token = get_token() if job.with_token else None
    model = HubModel(job.repo, job.revision)
    transfer = Downloader(
        Hub(job.endpoint, token),
        job,
        meter,
        patience,
        lambda error: hub_refusal(error, job.endpoint, model, token is not None),
    )
    try:
        _check_room(job, cache)
        meter.start()
        for file in job.files:
            transfer.fetch(file)
        cache.write_ref(job.revision, job.commit)
    except OSError as error:
        raise FetchError(disk_refusal(error, cache.folder, meter.done_bytes, meter.total_bytes)) from error


def _check_room(job: Job, cache: HubCache) -> None:
    """Raises FetchError if the rest of the download needs more room than the disk has."""
    cache.folder.mkdir(parents=True, exist_ok=True)
    need = sum(max(0, file.size - cache.stored_bytes(file.etag)) for file in job.files)
    free = shutil.disk_usage(cache.folder).free
    if need > free:
        raise FetchError(no_room(Path(job.hf_home), need, free))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m entrypoint.fetch")
    parser.add_argument("--job", required=True, help="the job's JSON file")
    parser.add_argument("--events-fd", type=int, required=True, help="descriptor for events, one JSON object a line")
    parser.add_argument("--lifeline-fd", type=int, required=True, help="this process ends at its end of file")
    parser.add_argument("--stall-seconds", type=float, default=Patience.stall_seconds)
    parser.add_argument("--give-up-seconds", type=float, default=Patience.give_up_seconds)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

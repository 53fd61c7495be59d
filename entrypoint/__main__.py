"""Commands: `python -m entrypoint serve`, `plan`, `doctor`, `link`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable

from app.contract import exits
from entrypoint.checkpoint.checkpoint import CheckpointError
from entrypoint.commands import doctor, link, plan
from entrypoint.hub.remote_headers import HubRefused
from entrypoint.settings.load import load_settings
from entrypoint.settings.settings import Settings, SettingsError


def main(arguments: list[str]) -> int:
    """Runs one command and returns its exit code; a wrong setting is one line on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m entrypoint", description="A GLM chat service that fits your memory"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="measure the machine, make a plan, run the chat service and keep it running")
    show = commands.add_parser("plan", help="print what fits this machine and why; writes nothing")
    plan.add_arguments(show)
    check = commands.add_parser("doctor", help="check everything a deployment needs; exit code 0, 1 (warnings) or 2")
    doctor.add_arguments(check)
    commands.add_parser("link", help="print the address to open; it signs your browser in if Berth made the key")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    try:
        settings = load_settings()
        return COMMANDS[options.command](settings, options)
    except (SettingsError, CheckpointError) as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"berth: {line}\n")
        return exits.REFUSED_SETTING
    except HubRefused as error:
        refusal = error.refusal
        sys.stderr.write(f"berth: {' '.join([refusal.why.en, refusal.remedy.en, refusal.env_line or '']).rstrip()}\n")
        return exits.REFUSED_PLAN


def _serve(settings: Settings, _options: argparse.Namespace) -> int:
    from entrypoint.commands.serve import serve

    return serve(settings)


COMMANDS: dict[str, Callable[[Settings, argparse.Namespace], int]] = {
    "serve": _serve,
    "plan": plan.run,
    "doctor": doctor.run,
    "link": link.print_link,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

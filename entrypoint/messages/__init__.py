"""Reasons as sentences, English and Chinese side by side, for the log, the command line, the status and the page."""

from entrypoint.messages import engine as engine
from entrypoint.messages import machine as machine

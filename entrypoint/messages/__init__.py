"""Reasons as sentences, English and Chinese side by side, for the log, the command line, the status and the page."""

from entrypoint.messages import doctor as doctor
from entrypoint.messages import download as download
from entrypoint.messages import files as files
from entrypoint.messages import hub as hub

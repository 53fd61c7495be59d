"""Reasons as sentences, English and Chinese side by side, for the log, the command line, the status and the page.

Importing a module registers its sentences.
"""

from entrypoint.messages import doctor as doctor
from entrypoint.messages import download as download
from entrypoint.messages import engine as engine
from entrypoint.messages import files as files
from entrypoint.messages import hub as hub
from entrypoint.messages import machine as machine
from entrypoint.messages import model as model
from entrypoint.messages import plan as plan
from entrypoint.messages import refusal as refusal
from entrypoint.messages import setting as setting

"""bitsandbytes, without its warnings. Its annotations are too incomplete for mypy."""

from __future__ import annotations

import importlib
import logging
from typing import Any

# At import it warns that a kernel from the hub, never used, is missing; at each int8 product, of a cast to fp16.
for _logger in ("bitsandbytes.backends.cpu.ops", "bitsandbytes.autograd._functions"):
    logging.getLogger(_logger).setLevel(logging.ERROR)

bnb_nn: Any = importlib.import_module("bitsandbytes.nn")
bnb_functional: Any = importlib.import_module("bitsandbytes.functional")

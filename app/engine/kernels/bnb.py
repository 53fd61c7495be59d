"""bitsandbytes, quiet. Its annotations are too partial to check against."""

from __future__ import annotations

import importlib
import logging
from typing import Any

# At import it regrets a kernel from a hub that is never asked; at each int8 product it tells that inputs become fp16.
for _chatter in ("bitsandbytes.backends.cpu.ops", "bitsandbytes.autograd._functions"):
    logging.getLogger(_chatter).setLevel(logging.ERROR)

bnb_nn: Any = importlib.import_module("bitsandbytes.nn")
bnb_functional: Any = importlib.import_module("bitsandbytes.functional")

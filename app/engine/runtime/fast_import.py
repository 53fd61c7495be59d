"""torch and transformers, without what Berth never uses of them: importing them is most of an engine's start."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"
DECORATORS = ("allow_in_graph", "assume_constant_result", "disable")
"""Of the compiler's, those that transformers puts on its functions: hints on how to compile them."""
MODELS = "transformers.models"

log = logging.getLogger(__name__)


def import_quickly(rooms: Callable[[], None]) -> None:
    """Runs what imports torch and transformers first; where a version of theirs needs more than Berth's, as usual.

    Objects that an import makes stay: looking for garbage among them, again and again, took a fifth of the time.
    """
    gc.disable()
    try:
        _leave_out_distributed()
        # Its `__init__` reads all files of all models to learn their classes' names.
        sys.modules.setdefault(MODELS, _bare(MODELS))
        with _without_compiler():
            rooms()
    except (ImportError, AttributeError) as error:
        log.warning("importing all of torch and transformers: %s", error)
        sys.modules.pop(MODELS, None)
        rooms()
    finally:
        gc.freeze()
        gc.enable()


def _leave_out_distributed() -> None:
    """Has transformers believe that this torch has no distributed tensors: it asks once and remembers."""
    import torch
    from transformers.utils.import_utils import is_torch_distributed_available

    answer = torch.distributed.is_available
    torch.distributed.is_available = lambda: False
    try:
        is_torch_distributed_available()
    finally:
        torch.distributed.is_available = answer


@contextlib.contextmanager
def _without_compiler() -> Iterator[None]:
    """torch's compiler brings sympy and three hundred modules more; whoever imports it afterwards gets it."""
    if COMPILER in sys.modules:
        yield
        return
    sys.modules[COMPILER] = bare = _bare(COMPILER)
    for name in DECORATORS:
        setattr(bare, name, _as_it_is)
    try:
        yield
    finally:
        del sys.modules[COMPILER]


def _as_it_is(function: Any = None, *_args: object, **_options: object) -> Any:
    """A decorator, with or without arguments, that changes nothing."""
    return _as_it_is if function is None else function


def _bare(name: str) -> ModuleType:
    """A package whose modules can be imported, and whose own `__init__` does not run."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    return importlib.util.module_from_spec(spec)

"""Imports torch and transformers without the parts that Berth never uses: the imports are most of an engine's start."""

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
"""The compiler's decorators that transformers puts on its functions: hints on how to compile them."""
MODELS = "transformers.models"

log = logging.getLogger(__name__)


def import_quickly(packages: Callable[[], None]) -> None:
    """Runs `packages`, which imports torch and transformers. If a version of theirs needs more, it imports all of them.

    Measured with torch 2.13.0 and transformers 5.23.0 on two cores of an Intel Xeon at 2.8 GHz (AVX-512): 2.5 s of
    processor time instead of 4.3, the median of three. Imported objects stay, so the garbage collector is off: its
    searches among them took a fifth of the time.
    """
    gc.disable()
    try:
        _leave_out_distributed()
        # Its `__init__` reads all files of all models to find their classes' names.
        sys.modules.setdefault(MODELS, _bare_package(MODELS))
        with _without_compiler():
            packages()
    except (ImportError, AttributeError) as error:
        log.warning("importing all of torch and transformers: %s", error)
        sys.modules.pop(MODELS, None)
        packages()
    finally:
        gc.freeze()
        gc.enable()


def _leave_out_distributed() -> None:
    """Makes transformers believe that this torch has no distributed tensors: it asks once and remembers the answer."""
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
    """torch's compiler imports sympy and three hundred other modules; whoever imports it afterwards gets it whole."""
    if COMPILER in sys.modules:
        yield
        return
    sys.modules[COMPILER] = package = _bare_package(COMPILER)
    for name in DECORATORS:
        setattr(package, name, _unchanged)
    try:
        yield
    finally:
        del sys.modules[COMPILER]


def _unchanged(function: Any = None, *_args: object, **_options: object) -> Any:
    """A decorator, with or without arguments, that changes nothing."""
    return _unchanged if function is None else function


def _bare_package(name: str) -> ModuleType:
    """A package whose modules can be imported, and whose own `__init__` is not run."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    return importlib.util.module_from_spec(spec)

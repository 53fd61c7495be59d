"""Which checkpoint `GLM_MODEL` means: the demo, a folder, the hub's cache, or a model that is still at the hub."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from app.contract.plan import Text
from entrypoint.hub.cache import HubCache
from entrypoint.hub.listing import HubModel
from entrypoint.reasons.model import DefaultModel, DemoByDefault, DemoInstead, ModelSet
from entrypoint.reasons.reason import Reason
from entrypoint.settings.settings import Settings, SettingsError

DEMO_NAME = "demo"
DEMO_FOLDER = Path(__file__).resolve().parents[1] / "app" / "demo_model"
HUB_ID = re.compile(r"[0-9A-Za-z][\w.-]*/[0-9A-Za-z][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class ModelChoice:
    """The name the API serves it under, the folder, and why this one."""

    name: str
    folder: Path
    why: Reason
    hub: HubModel | None = None
    """Where it comes from until `folder` holds it."""
    is_default: bool = False
    """Not set by name: if it can't be had or does not fit, the demo model takes its place."""


def resolve_model(settings: Settings) -> ModelChoice:
    """Finds the checkpoint on this machine; a model that was set is never replaced.

    Raises:
        SettingsError: it is neither a folder nor a hub id; the message names the folders.
    """
    if settings.model is None:
        return _unset(settings)
    why = ModelSet(settings.model)
    if settings.model == DEMO_NAME:
        return demo(why)
    folders = [Path(settings.model)]
    if settings.models_dir is not None:
        folders.insert(0, settings.models_dir / settings.model)
    for folder in folders:
        if _is_folder(folder):
            return ModelChoice(folder.name or settings.model, folder.absolute(), why)
    if HUB_ID.fullmatch(settings.model):
        return _from_hub(settings, HubModel(settings.model, settings.revision, tuple(map(str, folders))), why)
    places = " nor ".join(str(folder) for folder in folders)
    raise SettingsError(
        f"GLM_MODEL={settings.model}: no folder at {places}, and it is not a hub id such as zai-org/chatglm3-6b; give "
        f"a checkpoint folder (in the container: one below GLM_MODELS_DIR), a hub id or {DEMO_NAME}"
    )


def _is_folder(path: Path) -> bool:
    """Raises SettingsError if this user may not look: the folder could well be there."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except PermissionError as error:
        raise SettingsError(
            f"GLM_MODEL: {path} can't be accessed ({error.strerror}): "
            f"give uid {os.geteuid()} (Berth's user) read and search permission on its parent folders"
        ) from error
    except OSError:
        return False


def demo(why: Reason) -> ModelChoice:
    """The model that comes with Berth."""
    return ModelChoice(DEMO_NAME, DEMO_FOLDER, why)


def demo_instead(choice: ModelChoice, why: Text) -> ModelChoice:
    """The demo model in the place of a default that can't be had."""
    return demo(DemoInstead(choice.name, why))


def _unset(settings: Settings) -> ModelChoice:
    if settings.default_model is None:
        return demo(DemoByDefault())
    why = DefaultModel(settings.default_model)
    return replace(_from_hub(settings, HubModel(settings.default_model, settings.revision), why), is_default=True)


def _from_hub(settings: Settings, model: HubModel, why: Reason) -> ModelChoice:
    cache = HubCache.of(settings.hf_home, model.repo)
    commit = cache.commit(model.revision)
    if commit is not None and cache.missing(model.revision) is None:
        return ModelChoice(model.repo, cache.snapshot(commit), why)
    return ModelChoice(model.repo, cache.folder, why, model)

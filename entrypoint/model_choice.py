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
from entrypoint.settings.settings import Settings, SettingsError

DEMO_NAME = "demo"
DEMO_FOLDER = Path(__file__).resolve().parents[1] / "app" / "demo_model"
HUB_ID = re.compile(r"[0-9A-Za-z][\w.-]*/[0-9A-Za-z][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class ModelChoice:
    """The name the API serves it under, the folder, and why this one."""

    name: str
    folder: Path
    why: Text
    hub: HubModel | None = None
    """Where it comes from while `folder` does not hold it yet."""
    is_default: bool = False
    """Not asked for by name: where it can't be had or does not fit, the demo model takes its place."""


def resolve_model(settings: Settings) -> ModelChoice:
    """Finds the checkpoint, asking nobody; a model that was set is never replaced.

    Raises:
        SettingsError: it is neither a folder nor a hub id; the line names where it was looked for.
    """
    if settings.model is None:
        return _unset(settings)
    why = Text(f"Set by you: GLM_MODEL={settings.model}.", f"由你设置：GLM_MODEL={settings.model}。")
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
        f"GLM_MODEL={settings.model}: no folder at {places}, and it is no hub id such as zai-org/chatglm3-6b; give a "
        f"checkpoint folder (in the container: one below GLM_MODELS_DIR), a hub id or {DEMO_NAME}"
    )


def _is_folder(path: Path) -> bool:
    """Raises SettingsError where this user may not look: what is asked for could well be there."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except PermissionError as error:
        raise SettingsError(
            f"GLM_MODEL: {path} can't be looked for ({error.strerror}); "
            f"let uid {os.geteuid()}, as which Berth runs, read the folders above it"
        ) from error
    except OSError:
        return False


def demo(why: Text) -> ModelChoice:
    """The model that comes with Berth."""
    return ModelChoice(DEMO_NAME, DEMO_FOLDER, why)


def demo_instead(choice: ModelChoice, reason: Text) -> ModelChoice:
    """The demo model in the place of a default that can't be had."""
    return demo(
        Text(
            f"GLM_MODEL is not set and its default, {choice.name}, can't be served now: {reason.en} "
            "So the small demo model that comes with Berth is served.",
            f"没有设置 GLM_MODEL，而默认模型 {choice.name} 目前无法使用：{reason.zh}"
            "因此使用 Berth 自带的小型演示模型。",
        )
    )


def _unset(settings: Settings) -> ModelChoice:
    if settings.default_model is None:
        return demo(
            Text(
                "GLM_MODEL is not set, so the small demo model that comes with Berth is served.",
                "没有设置 GLM_MODEL，所以使用 Berth 自带的小型演示模型。",
            )
        )
    why = Text(
        f"GLM_MODEL is not set, so the default is taken: {settings.default_model}.",
        f"没有设置 GLM_MODEL，所以使用默认模型 {settings.default_model}。",
    )
    return replace(_from_hub(settings, HubModel(settings.default_model, settings.revision), why), is_default=True)


def _from_hub(settings: Settings, model: HubModel, why: Text) -> ModelChoice:
    cache = HubCache.of(settings.hf_home, model.repo)
    commit = cache.commit(model.revision)
    if commit is not None and cache.missing(model.revision) is None:
        return ModelChoice(model.repo, cache.snapshot(commit), why)
    return ModelChoice(model.repo, cache.folder, why, model)

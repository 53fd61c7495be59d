"""Code that lies beside a checkpoint and is named in its files is never run, whatever the layout."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import pytest

from app.contract.config import EngineConfig
from app.contract.wire import Message
from app.engine.formats.base import Conversation
from app.engine.formats.open import open_format
from app.engine.loading.checkpoint import open_checkpoint
from app.engine.loading.load import load_model
from tests.families import FAMILIES, make_family
from tests.paths import FIXTURES

CODE = "remote_code"
AUTO_MAP = {
    "AutoConfig": f"{CODE}.RemoteConfig",
    "AutoModel": f"{CODE}.RemoteModel",
    "AutoModelForCausalLM": f"{CODE}.RemoteModel",
    "AutoTokenizer": [f"{CODE}.RemoteTokenizer", f"{CODE}.RemoteTokenizer"],
}
TINY = ("chatglm3-caller", "chatglm3-tiny", "glm4-9b-chat-tiny", "tool-caller")


def name_code(folder: Path) -> Path:
    """Puts code into the checkpoint, names it wherever transformers looks for some; returns what it would leave."""
    mark = folder / "mark"
    source = (
        f"open({str(mark)!r}, 'w').close()\nclass RemoteConfig: pass\nRemoteModel = RemoteTokenizer = RemoteConfig\n"
    )
    for name in (CODE, "custom_generate/generate"):
        path = folder / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source, encoding="utf-8")
    runpy.run_path(str(folder / f"{CODE}.py"))
    assert mark.exists(), "run, it does leave its mark"
    mark.unlink()
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        path = folder / name
        fields = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        path.write_text(json.dumps(fields | {"auto_map": AUTO_MAP}), encoding="utf-8")
    return mark


def load_and_ask(folder: Path) -> None:
    """All that the engine reads of a checkpoint: weights, config, generation config, tokenizer, template."""
    checkpoint = open_checkpoint(folder)
    load_model(
        checkpoint,
        EngineConfig("fp32", "float32", ("cpu",), {"": "cpu"}, 64, 1, 64, 0, cpu_threads=2),
        lambda _count: None,
    )
    assert open_format(checkpoint).prompt(Conversation((Message("user", "x"),))).ids


@pytest.mark.parametrize("name", [name for name in FAMILIES if "," not in name and "tied" not in name])
def test_no_family_runs_code_of_its_checkpoint(name: str, tmp_path: Path) -> None:
    folder = make_family(tmp_path / "checkpoint", name)
    mark = name_code(folder)
    load_and_ask(folder)
    assert not mark.exists()


@pytest.mark.parametrize("name", TINY)
def test_no_kind_of_tokenizer_runs_code_of_its_checkpoint(name: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FIXTURES / name, tmp_path / name, copy_function=shutil.copyfile))
    mark = name_code(folder)
    load_and_ask(folder)
    assert not mark.exists()

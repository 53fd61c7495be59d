"""Environments of the rivals, made once each, and what llama.cpp needs of the checkpoint."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from transformers import AutoTokenizer

from tests.processes.service import TOP, clean_environment
from tools.setup_env import torch_version

LLAMA = ("xllamacpp==2026.10.11549", "gguf==0.19.0")
"""llama.cpp as a package that has its server, and the writer of its files."""
SCRIPTS = Path(__file__).with_name("llama")


def _version(package: str) -> str:
    for line in (TOP / "requirements" / "runtime.in").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{package}=="):
            return line.partition("==")[2]
    raise RuntimeError(f"requirements/runtime.in pins no {package}")


def rival_environment(cache: Path) -> Path:
    """The rival's environment, made once: the same versions of torch and transformers as Berth's."""
    torch, transformers = torch_version(TOP / "requirements"), _version("transformers")
    folder = cache / f"transformers-serve-{transformers}"
    done = folder / "finished"
    if not done.exists():
        print(f"making {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        install = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
        # A wheel that pip's own configuration knows of comes first, as in tools/setup_env.py.
        cpu = f"torch=={torch}+cpu"
        if subprocess.run([*install, cpu], stderr=subprocess.DEVNULL, check=False).returncode:
            subprocess.run([*install, "--index-url", "https://download.pytorch.org/whl/cpu", cpu], check=True)
        extra = f"bitsandbytes=={_version('bitsandbytes')}"
        subprocess.run([*install, f"transformers[serving]=={transformers}", extra], check=True)
        done.touch()
    return folder


def llama_environment(cache: Path) -> Path:
    """llama.cpp's environment."""
    folder = cache / LLAMA[0].replace("==", "-")
    done = folder / "finished"
    if not done.exists():
        print(f"making {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        install = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, *LLAMA], check=True)
        done.touch()
    return folder


def llama_weights(environment: Path, checkpoint: Path, form: str) -> Path:
    """The checkpoint as GGUF in that form, written once."""
    out = checkpoint.with_name(f"{checkpoint.name}-{form}.gguf")
    if not out.exists():
        part = out.with_suffix(".part")
        command = [environment / "bin" / "python", SCRIPTS / "weights.py", checkpoint, part, form]
        subprocess.run(command, check=True)
        part.rename(out)
    return out


def chat_ids(checkpoint: Path) -> Callable[[str], list[int]]:
    """Gives the token ids of a user's message in the chat template, as the chat servers compute it."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)

    def encode(text: str) -> list[int]:
        messages = [{"role": "user", "content": text}]
        ids: list[int] = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        return ids

    return encode


def features(cache: Path, server: str, cpu: dict[str, str]) -> str:
    """What of the CPU's instructions that server says it uses."""
    if server == "llama":
        python, code = llama_environment(cache) / "bin" / "python", "import xllamacpp as x; print(x.get_system_info())"
    else:
        folder = Path(sys.prefix) if server == "berth" else rival_environment(cache)
        python, code = folder / "bin" / "python", "import torch; print(torch.backends.cpu.get_cpu_capability())"
    done = subprocess.run([python, "-c", code], env={**clean_environment(), **cpu}, capture_output=True, check=True)
    return " ".join(word for word in done.stdout.decode().split() if word not in ("=", "1", "|", "CPU", ":"))

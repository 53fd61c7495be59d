"""How fast the engine answers on a GPU, beside the memory's bandwidth and transformers' continuous batching.

    python3 -m tests.bench.gpu_serving [--model GLM-4-9B] [--rungs bf16,int8,int4] [--at-once 1,8,32] [--keep FOLDER]

Needs Python 3.12, torch, transformers, accelerate and .gpu-kit (tools/gpu_kit.py); tests/gpu/run.sh serving sets the
path. Random weights of the published shapes; the engine is planned and started as the service does it and asked over
its socket: prompts of about 100 tokens, 128 new ones, greedy. One request's decoding is compared with the bandwidth
limit, weights read once a token at the memory's peak rate (clock and bus width by NVML). The rival is
`generate_batch` of transformers in bf16, in a process of its own, where it knows the layout.
`--device cpu` tries the bench itself on a tiny shape.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.contract.codec import dump_line
from app.contract.plan import Precision
from app.contract.wire import ChatRequest, Message, SamplingParams
from tests.bench.plan_accuracy import MIB, planned, started
from tools.checkpoints.make_checkpoint import make_checkpoint
from tools.checkpoints.shape import CheckpointShape

CONTEXT = 1024
NEW_TOKENS = 128
PROMPT = "one two three four five six seven eight nine ten " * 6
RIVAL = """
import json, sys, time, torch
from transformers import AutoModelForCausalLM, GenerationConfig
folder, at_once, tokens, device = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, device_map=device)
config = GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
prompts = [[5 + (7 * row + place) % 200 for place in range(100)] for row in range(at_once)]
model.generate_batch(prompts, generation_config=config)
begin = time.monotonic()
answers = model.generate_batch(prompts, generation_config=config)
seconds = time.monotonic() - begin
print(json.dumps(sum(len(answer.generated_tokens) for answer in answers.values()) / seconds))
"""


@dataclass(frozen=True)
class Speed:
    """So many requests at once."""

    tokens_per_second: float
    """Of all together, from the first byte sent to the last answer's end."""
    decode_per_second: float
    """Of one of them, from its first token to its last: the mean over requests."""


def shapes(device: str) -> dict[str, CheckpointShape]:
    """Full size on a GPU."""
    if device == "cpu":
        return {
            "tiny": CheckpointShape(
                hidden=256, layers=2, heads=4, kv_heads=2, head_dim=64, intermediate=512, vocab=2048
            )
        }
    return {
        "GLM-4-9B": CheckpointShape.published("zai-org/GLM-4-9B-0414"),
        "ChatGLM3-6B": CheckpointShape.published("zai-org/chatglm3-6b"),
    }


def peak_bandwidth() -> float | None:
    """Bytes a second of the first GPU's memory: double data rate at the largest clock; None where NVML can't tell."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        megahertz = pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_MEM)
        return 2.0 * megahertz * 1e6 * pynvml.nvmlDeviceGetMemoryBusWidth(handle) / 8
    except Exception as error:  # whatever a machine without a driver does
        print(f"no bandwidth: {error}", file=sys.stderr)
        return None


def one_answer(path: str, number: int, times: list[tuple[float, float, int]]) -> None:
    """Asks once and notes when the first and the last token came, and how many there were."""
    message = Message("user", f"{number} {PROMPT}")
    asked = ChatRequest(f"bench-{number}", (message,), SamplingParams(temperature=0.0), max_tokens=NEW_TOKENS)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(dump_line(asked))
        first = None
        with connection.makefile("rb") as lines:
            for line in lines:
                reply = json.loads(line)
                if reply["type"] == "delta" and first is None:
                    first = time.monotonic()
                if reply["type"] in ("finished", "failed"):
                    assert reply["type"] == "finished", reply
                    now = time.monotonic()
                    times.append((first or now, now, reply["completion_tokens"]))
                    return


def speed(path: str, at_once: int) -> Speed:
    """Asks so many at once, twice; the second time counts. No prompt begins like another one."""
    for asked in range(2):
        times: list[tuple[float, float, int]] = []
        numbers = range(1000 * at_once + 100 * asked, 1000 * at_once + 100 * asked + at_once)
        threads = [threading.Thread(target=one_answer, args=(path, number, times)) for number in numbers]
        begin = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(times) == at_once, "an answer failed; see above"
    last = max(end for _, end, _ in times)
    each = [(count - 1) / max(end - first, 1e-6) for first, end, count in times]
    return Speed(sum(count for _, _, count in times) / (last - begin), sum(each) / len(each))


def rival_speed(folder: Path, at_once: int, device: str) -> float | None:
    """Tokens a second of transformers' batching mode; None where it can't run this checkpoint."""
    command = [
        sys.executable,
        "-c",
        RIVAL,
        str(folder),
        str(at_once),
        str(NEW_TOKENS),
        "cuda" if device == "gpu" else "cpu",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    if done.returncode:
        print(f"the rival failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return float(json.loads(done.stdout.strip().splitlines()[-1]))


def measure(name: str, folder: Path, rung: Precision, at_once: Sequence[int], device: str) -> None:
    """Prints the rows of one rung."""
    limit = peak_bandwidth() if device == "gpu" else None
    with tempfile.TemporaryDirectory() as state:
        plan = planned(folder, name, rung, CONTEXT, max(at_once), device, Path(state))
        with started(plan, folder, Path(state)) as proof:
            for count in at_once:
                found = speed(str(Path(state) / "engine.sock"), count)
                share = found.decode_per_second * proof.weights_bytes / limit if limit and count == 1 else None
                memory = f"{proof.planned_bytes / MIB:,.0f} | {proof.measured_bytes / MIB:,.0f}"
                shown = f"{share:.0%}" if share is not None else ""
                figures = f"{found.tokens_per_second:.1f} | {found.decode_per_second:.1f} | {shown} | {memory}"
                print(f"| {name} | {rung} | {count} | {figures} |", flush=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--model", help="only models whose name contains this")
    parser.add_argument("--rungs", default="bf16,int8,int4")
    parser.add_argument("--at-once", default="1,8,32")
    parser.add_argument("--keep", type=Path, help="a folder for the checkpoints, kept for the next run")
    options = parser.parse_args()
    at_once = [int(count) for count in options.at_once.split(",")]
    head = ("model", "rung", "at once", "tok/s", "tok/s each", "of bandwidth", "planned, MiB", "peak, MiB")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name, shape in shapes(options.device).items():
            if options.model and options.model not in name:
                continue
            folder = (options.keep or Path(scratch)) / name
            if not (folder / "config.json").exists():
                make_checkpoint(folder, shape)
            for rung in options.rungs.split(","):
                measure(name, folder, rung, at_once, options.device)
            for count in at_once:
                rival = rival_speed(folder, count, options.device)
                shown = f"{rival:.1f}" if rival is not None else "can't"
                print(f"| {name} | transformers' batching, bf16 | {count} | {shown} | | | | |", flush=True)


if __name__ == "__main__":
    main()

#!/usr/bin/env bash
# Every check that needs a GPU, on a machine with Python 3.12, torch, transformers and accelerate; what else is needed
# lies in .gpu-kit (tools/gpu_kit.py). $OUT, where it is set, receives the tables.
#   bash tests/gpu/run.sh                                   everything
#   bash tests/gpu/run.sh tests [options of pytest]         the tests alone
#   bash tests/gpu/run.sh accuracy --model ChatGLM3-6B      planned against measured, a model at a time
#   bash tests/gpu/run.sh serving --model GLM-4-9B          tokens a second, beside bandwidth and transformers' batching
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHONPATH="$PWD:$PWD/.gpu-kit${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONPATH PYTHONDONTWRITEBYTECODE=1
out=${OUT:-.}
part=${1:-all}
shift || true
case $part in all | tests | accuracy | serving) ;; *) echo "run.sh: $part is not tests, accuracy or serving" >&2; exit 2 ;; esac
if [[ $part == all || $part == tests ]]; then
  python3 -m pytest tests/gpu -p no:cacheprovider "$@" 2>&1 | tee "$out/gpu-tests.txt"
fi
if [[ $part == all || $part == accuracy ]]; then
  python3 -m tests.bench.plan_accuracy --device gpu "$@" 2>&1 | tee "$out/plan-accuracy.md"
fi
if [[ $part == all || $part == serving ]]; then
  python3 -m tests.bench.gpu_serving "$@" 2>&1 | tee "$out/gpu-serving.md"
fi

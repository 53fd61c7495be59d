"""llama.cpp's own HTTP server until the process ends. Runs in llama.cpp's environment.

python serve.py MODEL.gguf PORT SLOTS CONTEXT THREADS
"""

from __future__ import annotations

import sys
import time

import xllamacpp


def main(model: str, port: int, slots: int, context: int, threads: int) -> None:
    """Slots of `context` tokens each. Its first line on standard output says what of the CPU this build uses."""
    print(xllamacpp.get_system_info(), flush=True)
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.n_parallel = slots
    params.n_ctx = slots * context
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.n_threads_http = slots + 4
    params.fit_params = False
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main(sys.argv[1], *(int(part) for part in sys.argv[2:6]))

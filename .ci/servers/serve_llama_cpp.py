"""llama.cpp's HTTP server from its Python binding, with what the checks need; until SIGTERM."""

from __future__ import annotations

import argparse
import signal

import xllamacpp


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="path of the GGUF file")
    parser.add_argument("--alias", required=True, help="the name it is served under")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--context", type=int, default=16384, help="tokens of all slots")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--api-key", default=None)
    return parser.parse_args()


def parameters(chosen: argparse.Namespace) -> xllamacpp.CommonParams:
    made = xllamacpp.CommonParams()
    made.model.path = chosen.model
    made.model_alias = {chosen.alias}
    made.hostnames = ["127.0.0.1"]
    made.port = chosen.port
    made.n_ctx = chosen.context
    made.n_parallel = chosen.slots
    made.cpuparams.n_threads = made.cpuparams_batch.n_threads = chosen.threads
    made.endpoint_metrics = made.endpoint_slots = made.offline = True
    made.ui = False
    if chosen.api_key is not None:
        made.api_keys = [chosen.api_key]
    return made


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    server = xllamacpp.Server(parameters(arguments()))
    signal.sigwait({signal.SIGTERM, signal.SIGINT})

#!/usr/bin/env bash
# llama-cpp-python's server, compiled here (3 minutes): no usage in streams; a new request ends the running one.
. "$(dirname "$0")/common.sh"
export CMAKE_BUILD_PARALLEL_LEVEL=2 CMAKE_ARGS="-DLLAMA_OPENSSL=OFF -DLLAMA_CURL=OFF -DLLAVA_BUILD=OFF"
make_models
make_venv "$VENV" 'llama-cpp-python[server]==0.3.36'
serve /v1/models "$VENV/bin/python" -m llama_cpp.server --model "$MODEL_F16" --model_alias "$MODEL_NAME" \
  --host 127.0.0.1 --port "$PORT" --n_ctx 4096 --n_threads 2 --n_threads_batch 2

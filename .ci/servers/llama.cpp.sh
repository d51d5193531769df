#!/usr/bin/env bash
# llama.cpp's own HTTP server, prebuilt. $LLAMA_ARGS: further flags of serve_llama_cpp.py.
. "$(dirname "$0")/common.sh"
make_models
make_venv "$VENV" xllamacpp==2026.10.11549
# shellcheck disable=SC2086  # a list of flags
serve /health "$VENV/bin/python" "$HERE/serve_llama_cpp.py" --model "$MODEL_F16" --alias "$MODEL_NAME" \
  --port "$PORT" ${LLAMA_ARGS:-}

#!/usr/bin/env bash
# `transformers serve`: answers one request at a time, never says [DONE], refuses fields it does not know.
. "$(dirname "$0")/common.sh"
make_models
TORCH=2.13.0
make_venv "$VENV" 'transformers[serving]==5.23.0'
# Its models are named by their path: the folder's name alone, from beside it, keeps paths out of the answers.
cd "$MODEL_DIR"
serve /health "$VENV/bin/transformers" serve "$MODEL_NAME" --host 127.0.0.1 --port "$PORT" \
  --device cpu --dtype float32

#!/usr/bin/env bash
# MLX's server on a CPU: HTTP/1.0, ends a stream by closing, a few tokens per second.
. "$(dirname "$0")/common.sh"
make_models
make_venv "$VENV" 'mlx-lm[cpu]==0.32.2'
cd "$MODEL_DIR"
serve /health "$VENV/bin/mlx_lm.server" --model "$MODEL_NAME" --host 127.0.0.1 --port "$PORT"

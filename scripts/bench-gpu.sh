#!/usr/bin/env bash
# All that is measured on an NVIDIA GPU, at full size, on random weights: make bench-gpu
# Needs onnxruntime-gpu and a llama-cpp-python built with CUDA (`auricle doctor` says how); 40 GB of disk.
# DRY=1 runs the same lines on the CPU, with random weights in the demo's shape, into build/bench/dry.
# The most wanted comes first. After LIMIT minutes no further step begins; what fails is named at the end, and all that
# was measured is kept and on the report. MODELS, LLM, ENCODERS, RUNS, TOKENS, PROVIDER, LAYERS, LIMIT and OUT may be
# set. Each record goes to $OUT/<model>-<what>.json, its table beside it.
set -euo pipefail
bench=${BENCH:-.venv/bin/auricle-bench} python=${PYTHON_BIN:-.venv/bin/python}
if [ -n "${DRY:-}" ]; then
  rm -rf build/bench/dry
  : "${MODELS:=demo}" "${LLM:=q8_0}" "${RUNS:=2}" "${TOKENS:=4}" "${PROVIDER:=cpu}" "${LAYERS:=0}"
  : "${OUT:=build/bench/dry/records}" "${WORK:=build/bench/dry}" "${NVIDIA_SMI:=echo}"
fi
models=${MODELS:-salmonn-7b canary-qwen-2.5b salmonn-13b} llm=${LLM:-q4_k_m} encoders=${ENCODERS:-fp16}
runs=${RUNS:-20} tokens=${TOKENS:-100} provider=${PROVIDER:-cuda} layers=${LAYERS:--1} limit=${LIMIT:-12}
out=${OUT:-bench/results/gpu-$(date +%Y-%m-%d)} work=${WORK:-build/bench}
"$python" - "$provider" <<'PY' || exit 2
import sys

from auricle.runtime.llm.llama import can_offload
from auricle.runtime.system.ort import probe

provider = sys.argv[1]
reason = probe(provider)
if reason or (provider != "cpu" and not can_offload()):
    lacks = f"onnxruntime's {provider} does not start ({reason})" if reason else "this llama-cpp-python has no CUDA"
    sys.exit(f"bench-gpu: {lacks}: `auricle doctor` says what to install")
PY
mkdir -p "$out" "$work"
"${NVIDIA_SMI:-nvidia-smi}" --query-gpu=name,driver_version,memory.total --format=csv,noheader >"$out/gpu.txt"
records=() failed=() left=()
begin() { # NAME: whether there is time for it
  [ $SECONDS -lt $((limit * 60)) ] && return
  left+=("$1")
  return 1
}
run() { # NAME COMMAND...: the table and the record of one command
  local name=$1
  shift
  begin "$name" || return 0
  if "$bench" "$@" | tee "$out/$name.txt"; then
    tail -n 1 "$out/$name.txt" >"$out/$name.json"
    records+=("$out/$name.json")
  else
    failed+=("$name")
  fi
  echo "bench-gpu: $name, $SECONDS s since the start"
}
for model in $models; do
  bundle=$work/$model-$encoders-$llm
  if [ ! -d "$bundle" ]; then
    begin "$model" || continue
    "$bench" synth --model "$model" --encoders "$encoders" --llm "$llm" --out "$bundle" || {
      failed+=("$model")
      continue
    }
  fi
  run "$model-stages" stages "$bundle" --provider "$provider" --runs "$runs" --new-tokens "$tokens" \
    --report "$out/$model-stages"
  run "$model-live" live "$bundle" --provider "$provider" --source export/jfk.wav --report "$out/$model-live"
  run "$model-decode" peers --part decode --bundle "$bundle" --tokens "$tokens" --n-gpu-layers "$layers"
done
if [ ${#records[@]} -gt 0 ]; then
  "$bench" report "${records[@]}" --out "$out/report" || failed+=(report)
  echo "bench-gpu: ${#records[@]} records in $out, all of them on $out/report/index.html"
fi
[ ${#left[@]} -eq 0 ] || echo "bench-gpu: left out after $limit minutes: ${left[*]}; run it again with MODELS or LIMIT"
[ ${#failed[@]} -eq 0 ] || {
  echo "bench-gpu: failed: ${failed[*]}" >&2
  exit 1
}

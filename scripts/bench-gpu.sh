#!/usr/bin/env bash
# All that is measured on an NVIDIA GPU, at full size, on random weights: make bench-gpu
# Needs onnxruntime-gpu and a llama-cpp-python built with CUDA (`auricle doctor` says how); 40 GB of disk.
# MODELS, LLM, ENCODERS, RUNS and OUT may be set. Each record goes to $OUT/<model>-<what>.json, its table beside it.
set -euo pipefail
bench=${BENCH:-.venv/bin/auricle-bench} python=${PYTHON_BIN:-.venv/bin/python}
models=${MODELS:-salmonn-7b salmonn-13b canary-qwen-2.5b} llm=${LLM:-q4_k_m} encoders=${ENCODERS:-fp16} runs=${RUNS:-20}
out=${OUT:-bench/results/gpu-$(date +%Y-%m-%d)} work=build/bench
"$python" - <<'PY' || exit 2
import sys

from auricle.runtime.llm.llama import can_offload
from auricle.runtime.system.ort import probe

reason = probe("cuda")
if reason or not can_offload():
    lacks = f"onnxruntime's CUDA does not start ({reason})" if reason else "this llama-cpp-python has no CUDA"
    sys.exit(f"bench-gpu: {lacks}: `auricle doctor` says what to install")
PY
mkdir -p "$out" "$work"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader >"$out/gpu.txt"
run() { # NAME COMMAND...: the table and the record of one command
  local name=$1
  shift
  "$bench" "$@" | tee "$out/$name.txt"
  tail -n 1 "$out/$name.txt" >"$out/$name.json"
}
for model in $models; do
  bundle=$work/$model-$encoders-$llm
  [ -d "$bundle" ] || "$bench" synth --model "$model" --encoders "$encoders" --llm "$llm" --out "$bundle"
  run "$model-stages" stages "$bundle" --provider cuda --runs "$runs" --new-tokens 100 --report "$out/$model-stages"
  run "$model-live" live "$bundle" --provider cuda --source export/jfk.wav --report "$out/$model-live"
  run "$model-decode" peers --part decode --bundle "$bundle" --tokens 100
done
"$bench" report "$out"/*.json --out "$out/report"
echo "bench-gpu: records in $out, all of them on $out/report/index.html"

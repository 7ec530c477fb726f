#!/usr/bin/env bash
# llama.cpp's Vulkan backend on Mesa's software device, against the CPU: make vulkan-test, on Debian 12
# Half an hour of two cores, once, most of it for its shaders. Debian 12's headers lack one extension that llama.cpp only
# uses with validation layers, and its loader does not export two functions: scripts/vulkan has both.
set -euo pipefail
python=${1:-.venv/bin/python} work=build/vulkan here=$PWD/scripts/vulkan
mkdir -p "$work"
bash scripts/system-packages.sh vulkan
if [ -z "$(ls "$work"/wheels/llama_cpp_python-*.whl 2>/dev/null)" ]; then
  # shellcheck source=scripts/llama-cpp.sh
  . scripts/llama-cpp.sh
  CMAKE_ARGS="$CMAKE_ARGS -DGGML_VULKAN=ON '-DCMAKE_CXX_FLAGS=-include $here/layer-settings.hpp'" "$python" -m pip wheel --quiet \
    --no-deps --no-cache-dir --no-binary llama-cpp-python --constraint constraints.txt --wheel-dir "$work/wheels" llama-cpp-python
fi
[ -d "$work/site" ] || "$python" -m pip install --quiet --no-deps --target "$work/site" "$work"/wheels/llama_cpp_python-*.whl
[ -e "$work/extensions.so" ] || cc -shared -fPIC -o "$work/extensions.so" "$here/extensions.c" -lvulkan
golden=tests/golden/salmonn-tiny/checkpoint
[ -d "$work/golden" ] || "$python" -m auricle.export salmonn --whisper "$golden/whisper" --beats "$golden/beats.pt" --vicuna "$golden/vicuna" \
  --salmonn "$golden/salmonn.pth" --qformer-heads 4 --encoders fp32 --llm f32 --lora both --out "$work/golden"
# a processor is no device that llama.cpp takes by itself
GGML_VK_VISIBLE_DEVICES=0 LD_PRELOAD=$PWD/$work/extensions.so PYTHONPATH=$work/site "$python" scripts/vulkan-answers.py "$work/golden" demo

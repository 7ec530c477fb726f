#!/usr/bin/env bash
# Auricle on aarch64, emulated, against what it gives here: make arm-test, on Debian 12
# Python for arm64 and qemu are Debian's, unpacked under build/arm; a cross-compiler is installed where there is none, for
# llama-cpp-python's wheel, which is built once; all takes ten minutes of two cores then. The same onnxruntime on both sides, so that what
# differs is the processor. Newer ones crash under this qemu when they are imported.
set -euo pipefail
python=${1:-.venv/bin/python} work=build/arm ort=1.23.2 numpy=2.2.6
packages="libc6 libgcc-s1 libstdc++6 libgomp1 zlib1g libffi8 libssl3 libexpat1 libbz2-1.0 liblzma5 libuuid1 libsqlite3-0
  python3.11-minimal libpython3.11-minimal libpython3.11-stdlib"
needs="flatbuffers protobuf packaging platformdirs coloredlogs humanfriendly sympy mpmath"
if [ ! -e "$work/ready" ]; then
  rm -rf "$work"
  mkdir -p "$work"/{debs,root,qemu,site} "$work"/apt/{state/lists,cache/archives}/partial
  touch "$work/apt/status"
  arm64=(-o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o APT::Sandbox::User=root -o "Dir::State=$PWD/$work/apt/state"
    -o "Dir::State::status=$PWD/$work/apt/status" -o "Dir::Cache=$PWD/$work/apt/cache")
  apt-get "${arm64[@]}" -qq update
  (cd "$work/debs" && apt-get -qq download qemu-user-static && apt-get "${arm64[@]}" -qq download $packages)
  for deb in "$work"/debs/*_arm64.deb; do dpkg-deb -x "$deb" "$work/root"; done
  dpkg-deb -x "$work"/debs/qemu-user-static_*.deb "$work/qemu"
  # shellcheck disable=SC2086
  "$python" -m pip install --quiet --no-deps --only-binary=:all: --python-version 3.11 --platform manylinux_2_28_aarch64 \
    --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 --target "$work/site" "onnxruntime==$ort" "numpy==$numpy" $needs
  # shellcheck disable=SC2086
  "$python" -m pip install --quiet --no-deps --target "$work/here" "onnxruntime==$ort" $needs
  touch "$work/ready"
fi
if [ -z "$(ls "$work"/wheels/llama_cpp_python-*aarch64.whl 2>/dev/null)" ]; then # every board's: armv8-a, without dot product
  bash scripts/system-packages.sh arm
  # shellcheck source=scripts/llama-cpp.sh
  . scripts/llama-cpp.sh
  cross="-DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_C_COMPILER=aarch64-linux-gnu-gcc"
  cross+=" -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DGGML_NATIVE=OFF -DGGML_CPU_ARM_ARCH=armv8-a"
  CMAKE_ARGS="$CMAKE_ARGS $cross" _PYTHON_HOST_PLATFORM=linux-aarch64 "$python" -m pip wheel --quiet --no-deps --no-cache-dir \
    --no-binary llama-cpp-python --constraint constraints.txt --wheel-dir "$work/wheels" llama-cpp-python
fi
if [ ! -d "$work/site/llama_cpp" ]; then
  "$python" -m pip install --quiet --no-deps --only-binary=:all: --python-version 3.11 --platform linux_aarch64 \
    --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 --constraint constraints.txt --target "$work/site" \
    "$work"/wheels/llama_cpp_python-*aarch64.whl jinja2 markupsafe diskcache typing-extensions av soxr wcwidth
fi
salmonn=tests/golden/salmonn-tiny/checkpoint salm=tests/golden/salm-tiny/checkpoint exact="--encoders fp32 --llm f32 --lora both"
# shellcheck disable=SC2086
[ -d "$work/golden-salmonn" ] || "$python" -m auricle.export salmonn --whisper "$salmonn/whisper" --beats "$salmonn/beats.pt" \
  --vicuna "$salmonn/vicuna" --salmonn "$salmonn/salmonn.pth" --qformer-heads 4 $exact --out "$work/golden-salmonn"
# shellcheck disable=SC2086
[ -d "$work/golden-salm" ] || "$python" -m auricle.export salm --checkpoint "$salm" --qwen "$salm/qwen3" $exact --out "$work/golden-salm"
links=$work/links/auricle # the package without an installation: its import hook is not in that Python
mkdir -p "$links"
for part in runtime models; do ln -sfn "$PWD/$part" "$links/$part"; done
emulated() { # processor, then what Python is to run
  "$work/qemu/usr/bin/qemu-aarch64-static" -cpu "$1" -L "$work/root" -E PYTHONHOME="$PWD/$work/root/usr" \
    -E PYTHONPATH="$work/site:$work/links" "$work/root/usr/bin/python3.11" -u "${@:2}"
}
PYTHONPATH=$work/here:$work/links "$python" scripts/arm-encoders.py write "$work/here.npz"
for processor in cortex-a72 max,sve=off; do # without dot product, and with it
  echo "$processor"
  emulated "$processor" scripts/arm-encoders.py compare "$work/here.npz"
done
emulated cortex-a72 scripts/arm-answers.py "$work/golden-salmonn" "$work/golden-salm"
emulated cortex-a72 -m auricle.runtime verify --run models/demo

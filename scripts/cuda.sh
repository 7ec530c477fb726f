#!/usr/bin/env bash
# llama-cpp-python with llama.cpp's CUDA backend for one kind of card, as a wheel: make cuda-wheel ARCH=90
# ARCH: the card's compute capability without its point (86: RTX 30, 89: RTX 40, 90: H100, 120: RTX 50); the card that is
# there if it is left out. Needs nvcc and a C++ compiler. Takes minutes on many cores, an hour or so on one; a build that was
# stopped goes on where it was. Where the toolkit is without cuBLAS, PyPI's is taken (420 MB); the wheel finds both.
set -euo pipefail
python=${1:-.venv/bin/python} arch=${2:-} work=build/cuda
fail() {
  echo "cuda-wheel: $1" >&2
  exit 1
}
command -v nvcc >/dev/null || fail "nvcc is missing: install NVIDIA's CUDA toolkit and put its bin folder on PATH"
command -v c++ >/dev/null || fail "a C++ compiler is missing: install g++ (Debian's name)"
[ -n "$arch" ] || arch=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .) || true
[[ $arch =~ ^[0-9]+a?$ ]] || fail "no NVIDIA card is here to ask: name its compute capability, such as ARCH=89"
release=$(nvcc --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p')
mkdir -p "$work"
# shellcheck source=scripts/llama-cpp.sh
. scripts/llama-cpp.sh
options="-DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=$arch-real"
home=$(cd "$( (nvcc -v __ 2>&1 || true) | sed -n 's/^#\$ TOP=//p')" && pwd)
if ! compgen -G "$home/include/cublas_v2.h" >/dev/null; then
  major=${release%%.*}
  if [ "$major" -ge 13 ]; then package=nvidia-cublas folder=cu$major; else package=nvidia-cublas-cu$major folder=cublas; fi
  if [ ! -d "$work/cublas" ]; then
    rm -rf "$work/cublas.part"
    "$python" -m pip install --quiet --no-deps --target "$work/cublas.part" "$package>=$release,<${release%.*}.$((${release#*.} + 1))"
    mv "$work/cublas.part" "$work/cublas"
  fi
  cublas=$PWD/$work/cublas/nvidia/$folder
  options+=" -DCUDA_cublas_LIBRARY=$(ls "$cublas"/lib/libcublas.so.*) -DCUDA_cublasLt_LIBRARY=$(ls "$cublas"/lib/libcublasLt.so.*)"
  export CPATH=$cublas/include${CPATH:+:$CPATH}
fi
# without the driver's library to link with, device memory is got in the older way
ls "$home"/lib*/stubs/libcuda.so "$home"/targets/*/lib/stubs/libcuda.so >/dev/null 2>&1 || options+=" -DGGML_CUDA_NO_VMM=ON"
if [ ! -d "$work/source" ]; then
  "$python" -m pip download --quiet --no-deps --no-binary llama-cpp-python --constraint constraints.txt --dest "$work" llama-cpp-python
  rm -rf "$work/source.part"
  mkdir "$work/source.part"
  tar -xzf "$work"/llama_cpp_python-*.tar.gz --strip-components 1 -C "$work/source.part"
  mv "$work/source.part" "$work/source"
fi
started=$SECONDS
CMAKE_ARGS="$options $CMAKE_ARGS" CMAKE_BUILD_PARALLEL_LEVEL=${JOBS:-$(nproc)} "$python" -m pip wheel --quiet --no-deps --no-cache-dir \
  --config-settings "build-dir=$PWD/$work/tree-$arch" --wheel-dir "$work/wheels" "$work/source"
echo "cuda-wheel: $(ls "$work"/wheels/*.whl), $(((SECONDS - started) / 60)) minutes; install it with pip install --force-reinstall --no-deps"

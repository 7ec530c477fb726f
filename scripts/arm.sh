#!/usr/bin/env bash
# The encoders on aarch64, emulated, against what they give here: make arm-test, on Debian 12
# Python for arm64 and qemu are Debian's, unpacked under build/arm; nothing is installed. The same onnxruntime on both
# sides, so that what differs is the processor. Newer ones crash under this qemu when they are imported.
set -euo pipefail
python=${1:-.venv/bin/python} work=build/arm ort=1.23.2 numpy=2.2.6
packages="libc6 libgcc-s1 libstdc++6 zlib1g libffi8 libssl3 libexpat1 libbz2-1.0 liblzma5 libuuid1
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
links=$work/links/auricle # the package without an installation: its import hook is not in that Python
mkdir -p "$links"
for part in runtime models; do ln -sfn "$PWD/$part" "$links/$part"; done
PYTHONPATH=$work/here:$work/links "$python" scripts/arm-encoders.py write "$work/here.npz"
"$work/qemu/usr/bin/qemu-aarch64-static" -L "$work/root" -E PYTHONHOME="$PWD/$work/root/usr" \
  -E PYTHONPATH="$work/site:$work/links" "$work/root/usr/bin/python3.11" -u scripts/arm-encoders.py compare "$work/here.npz"

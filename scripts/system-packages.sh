#!/usr/bin/env bash
# Usage: system-packages.sh [build|training|arm|vulkan]. Debian packages, installed when this is root's, else named.
# build: what installing needs: venv, and a compiler where llama-cpp-python is not there yet ($VENV, default .venv).
# training: more voices, the sentences they speak, recordings of people to listen to in between.
# arm: a compiler for aarch64; vulkan: headers, a compiler of shaders, Mesa's software device.
# Else what `make test` and `make demo-eval` use: speech for the demo corpus, PortAudio for sounddevice. With apt-get also
# PulseAudio, which the tests start as a microphone that plays files, and Chromium, which opens the bench's report;
# without them those tests are skipped.
set -euo pipefail
wanted=() tested=()

manage() { # apt-get that waits while another one works: for dpkg's lock by itself, for the lists' lock here
  local try errors
  for try in $(seq 120); do
    errors=$(DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -qq "$@" 2>&1 >/dev/null) && return
    [[ $errors == */lock* ]] || break
    [ "$try" -gt 1 ] || echo "Waiting for another package manager to finish." >&2
    sleep 5
  done
  echo "$errors" >&2
  return 1
}

if [ "${1:-}" = build ]; then
  python=$(ls "${VENV:-.venv}/bin/python" 2>/dev/null || echo "${PYTHON:-python3}")
  command -v "$python" >/dev/null || wanted+=(python3)
  "$python" -c 'import ensurepip, venv' 2>/dev/null || wanted+=(python3-venv)
  "$python" -c 'import llama_cpp' 2>/dev/null || command -v c++ >/dev/null || wanted+=(g++)
elif [ "${1:-}" = arm ]; then
  command -v aarch64-linux-gnu-g++ >/dev/null || wanted+=(g++-aarch64-linux-gnu)
elif [ "${1:-}" = vulkan ]; then
  [ -e /usr/include/vulkan/vulkan.hpp ] || wanted+=(libvulkan-dev)
  command -v glslc >/dev/null || wanted+=(glslc)
  [ -d /usr/include/spirv ] || wanted+=(spirv-headers)
  compgen -G "/usr/share/vulkan/icd.d/lvp_icd*" >/dev/null || wanted+=(mesa-vulkan-drivers)
elif [ "${1:-}" = training ]; then
  [ -d /usr/share/wordnet ] || wanted+=(wordnet-base)
  [ -d /usr/share/pocketsphinx/test ] || wanted+=(pocketsphinx-testdata)
  [ -d /usr/share/asterisk/sounds/en_US_f_Allison ] || wanted+=(asterisk-core-sounds-en-g722)
  [ -f /usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz ] || wanted+=(asterisk-core-sounds-en)
  command -v text2wave >/dev/null || wanted+=(festival)
  [ -d /usr/share/festival/voices/english/kal_diphone ] || wanted+=(festvox-kallpc16k)
  [ -d /usr/share/festival/voices/english/ked_diphone ] || wanted+=(festvox-kdlpc16k)
else
  command -v espeak-ng >/dev/null || wanted+=(espeak-ng)
  command -v flite >/dev/null || wanted+=(flite)
  ldconfig -p | grep -q libportaudio || wanted+=(libportaudio2)
  command -v pulseaudio >/dev/null || tested+=(pulseaudio)
  command -v paplay >/dev/null || tested+=(pulseaudio-utils)
  compgen -G "/usr/lib/*/alsa-lib/libasound_module_pcm_pulse.so" >/dev/null || tested+=(libasound2-plugins)
  command -v chromium google-chrome >/dev/null || tested+=(chromium)
fi
if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
  [ ${#wanted[@]} -eq 0 ] && exit 0
  echo "Please install: ${wanted[*]} (Debian names), then run this again." >&2
  [[ " ${wanted[*]} " == *" g++ "* ]] &&
    echo "Without a compiler: llama-cpp-python's own wheels, https://abetlen.github.io/llama-cpp-python/whl/cpu" >&2
  exit 1
fi
[ $((${#wanted[@]} + ${#tested[@]})) -eq 0 ] && exit 0
manage update
for package in "${tested[@]}"; do # Ubuntu has Chromium as a snap only
  apt-cache show "$package" >/dev/null 2>&1 && wanted+=("$package")
done
[ ${#wanted[@]} -eq 0 ] && exit 0
manage install -y "${wanted[@]}"

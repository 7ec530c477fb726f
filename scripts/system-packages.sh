#!/usr/bin/env bash
# Debian packages that `make test` and `make demo-eval` use: speech for the demo corpus, PortAudio for sounddevice.
set -euo pipefail
wanted=()
command -v espeak-ng >/dev/null || wanted+=(espeak-ng)
command -v flite >/dev/null || wanted+=(flite)
ldconfig -p | grep -q libportaudio || wanted+=(libportaudio2)
[ ${#wanted[@]} -eq 0 ] && exit 0
if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
  echo "Please install: ${wanted[*]} (Debian names), then run this again." >&2
  exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${wanted[@]}" >/dev/null

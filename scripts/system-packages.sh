#!/usr/bin/env bash
# Debian packages that `make test` and `make demo-eval` use: speech for the demo corpus, PortAudio for sounddevice.
# With apt-get also PulseAudio, which the tests start as a microphone that plays files; without it they are skipped.
set -euo pipefail
wanted=() virtual=()
command -v espeak-ng >/dev/null || wanted+=(espeak-ng)
command -v flite >/dev/null || wanted+=(flite)
ldconfig -p | grep -q libportaudio || wanted+=(libportaudio2)
command -v pulseaudio >/dev/null || virtual+=(pulseaudio)
command -v paplay >/dev/null || virtual+=(pulseaudio-utils)
compgen -G "/usr/lib/*/alsa-lib/libasound_module_pcm_pulse.so" >/dev/null || virtual+=(libasound2-plugins)
if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
  [ ${#wanted[@]} -eq 0 ] && exit 0
  echo "Please install: ${wanted[*]} (Debian names), then run this again." >&2
  exit 1
fi
wanted+=("${virtual[@]}")
[ ${#wanted[@]} -eq 0 ] && exit 0
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${wanted[@]}" >/dev/null

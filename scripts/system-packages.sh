#!/usr/bin/env bash
# Debian packages that `make test` and `make demo-eval` use: speech for the demo corpus, PortAudio for sounddevice.
# With apt-get also PulseAudio, which the tests start as a microphone that plays files, and Chromium, which opens the
# bench's report; without them those tests are skipped.
set -euo pipefail
wanted=() tested=()
command -v espeak-ng >/dev/null || wanted+=(espeak-ng)
command -v flite >/dev/null || wanted+=(flite)
ldconfig -p | grep -q libportaudio || wanted+=(libportaudio2)
command -v pulseaudio >/dev/null || tested+=(pulseaudio)
command -v paplay >/dev/null || tested+=(pulseaudio-utils)
compgen -G "/usr/lib/*/alsa-lib/libasound_module_pcm_pulse.so" >/dev/null || tested+=(libasound2-plugins)
command -v chromium google-chrome >/dev/null || tested+=(chromium)
if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
  [ ${#wanted[@]} -eq 0 ] && exit 0
  echo "Please install: ${wanted[*]} (Debian names), then run this again." >&2
  exit 1
fi
[ $((${#wanted[@]} + ${#tested[@]})) -eq 0 ] && exit 0
apt-get update -qq
for package in "${tested[@]}"; do # Ubuntu has Chromium as a snap only
  apt-cache show "$package" >/dev/null 2>&1 && wanted+=("$package")
done
[ ${#wanted[@]} -eq 0 ] && exit 0
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${wanted[@]}" >/dev/null

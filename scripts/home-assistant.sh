#!/usr/bin/env bash
# Home Assistant 2025.4.4 in build/home-assistant/venv, then scripts/home-assistant.py in it (make home-assistant).
# Usage: home-assistant.sh AURICLE [PNG]      with PNG: a picture of its page on the service, by Debian's Chromium
# It needs Python 3.13, and half a gigabyte for the environment; without that Python it is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
auricle=$(realpath -s "$1")
work=$PWD/build/home-assistant

for python in $(type -ap python3.13) "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13.*/bin/python; do
  "$python" -c 'import ensurepip, sys; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null && break
  python=
done
if [ -z "${python:-}" ]; then
  echo "Home Assistant is skipped: it needs Python 3.13, which was not found"
  exit 0
fi
if [ ! -e "$work/installed" ]; then
  rm -rf "$work"
  "$python" -m venv "$work/venv"
  "$work/venv/bin/pip" install --quiet homeassistant==2025.4.4
  constraints=$work/venv/lib/python3.13/site-packages/homeassistant/package_constraints.txt
  # What its components would install themselves, at the versions that it states.
  "$work/venv/bin/pip" install --quiet --constraint "$constraints" hassil home-assistant-intents pymicro-vad \
    pyspeex-noise ha-ffmpeg mutagen home-assistant-frontend wyoming==1.5.4
  touch "$work/installed"
fi
"$work/venv/bin/python" scripts/home-assistant.py "$auricle" "$work/homes" "${@:2}"

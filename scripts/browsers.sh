#!/usr/bin/env bash
# The page of `auricle serve` in Chromium and Firefox (make browsers): node packages in build/browsers, browsers from Debian
# where they are missing and this is root's. What is missing then is skipped by its name.
# Usage: browsers.sh PYTHON [--pictures]     with --pictures: also docs/images/page-*.png, anew
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
work=build/browsers
packages="puppeteer-core@24.43.1 axe-core@4.14.1"

wanted=()
command -v chromium >/dev/null || wanted+=(chromium)
command -v firefox-esr >/dev/null || wanted+=(firefox-esr)
command -v node >/dev/null || wanted+=(nodejs npm)
command -v pulseaudio >/dev/null || wanted+=(pulseaudio)
if [ ${#wanted[@]} -gt 0 ] && command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 -qq install -y "${wanted[@]}" >/dev/null
fi
if ! command -v npm >/dev/null; then
  echo "The browsers are skipped: they are driven from node, which was not found"
  exit 0
fi
if [ "$(cat "$work/installed" 2>/dev/null)" != "$packages" ]; then
  rm -rf "$work"
  mkdir -p "$work"
  # shellcheck disable=SC2086
  npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$work" $packages
  echo "$packages" >"$work/installed"
fi
AURICLE_BROWSERS=$PWD/$work "$python" -m pytest -rs tests/server/page/test_browsers.py
if [ "${2:-}" = --pictures ]; then
  AURICLE_BROWSERS=$PWD/$work "$python" scripts/page-pictures.py
fi

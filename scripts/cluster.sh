#!/usr/bin/env bash
# Ray in an environment of its own, build/cluster-venv, above this project's; then the tests on a real cluster of two nodes
# on this machine, and with nginx before two servers where root's Debian can install it (make cluster-test).
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${BIN:-.venv/bin}/python")
venv=build/cluster-venv
pin="ray[client]$(sed -n 's/^ray\(==.*\)/\1/p' constraints.txt)"
if [ "$pin" != "$(cat $venv/installed 2>/dev/null)" ]; then
  echo "Installing $pin in $venv"
  rm -rf $venv
  "$python" -m venv $venv
  packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  own=$($venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  echo "import site; site.addsitedir('$packages')" >"$own/above.pth"
  $venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "$pin"
  echo "$pin" >$venv/installed
fi
if ! command -v nginx >/dev/null && command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 install -y nginx-light >/dev/null
fi
$venv/bin/python -m pytest -m cluster tests/cluster "$@"

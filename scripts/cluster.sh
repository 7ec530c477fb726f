#!/usr/bin/env bash
# Ray in an environment of its own, build/cluster-venv, above this project's; then the tests on a real cluster of two nodes
# on this machine (make cluster-test).
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${BIN:-.venv/bin}/python")
venv=build/cluster-venv
pin=$(grep '^ray==' constraints.txt)
if [ "$pin" != "$(cat $venv/installed 2>/dev/null)" ]; then
  echo "Installing $pin in $venv"
  rm -rf $venv
  "$python" -m venv $venv
  packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  own=$($venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  echo "import site; site.addsitedir('$packages')" >"$own/above.pth"
  $venv/bin/python -m pip install --quiet --disable-pip-version-check "$pin"
  echo "$pin" >$venv/installed
fi
$venv/bin/python -m pytest -m cluster tests/cluster "$@"

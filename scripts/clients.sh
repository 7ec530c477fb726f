#!/usr/bin/env bash
# Usage: clients.sh [NAME ...]. Other people's clients, each in build/clients/NAME, then the tests in which they ask the
# server (make clients). Names: node, agents, pipecat, livekit; default: all. Their versions stand in tests/clients/.
# Without Node, where it cannot be installed, node is skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath -s "${BIN:-.venv/bin}/python")
pins=$PWD/tests/clients

find_node() { # installed when this is root's Debian
  command -v npm >/dev/null && return
  if command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 install -y nodejs npm >/dev/null
  fi
  command -v npm >/dev/null
}

install() { # install NAME, into the current folder
  if [ "$1" = node ]; then
    cp "$pins/package.json" "$pins/package-lock.json" .
    npm ci --silent --ignore-scripts --no-audit --no-fund
  else
    "$python" -m venv venv
    venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement "$pins/$1.txt"
  fi
}

[ $# -gt 0 ] || set -- node agents pipecat livekit
tests=()
for name in "$@"; do
  case $name in
    node) versions=$pins/package-lock.json ;;
    agents | pipecat | livekit) versions=$pins/$name.txt ;;
    *) echo "$name is no client: there are node, agents, pipecat and livekit" >&2 && exit 2 ;;
  esac
  if [ "$name" = node ] && ! find_node; then
    echo "node is skipped: Node and npm were not found, and cannot be installed here"
    continue
  fi
  folder=build/clients/$name
  if ! cmp -s "$versions" "$folder/installed"; then
    echo "Installing $name in $folder"
    rm -rf "$folder"
    mkdir -p "$folder"
    (cd "$folder" && install "$name")
    cp "$versions" "$folder/installed"
  fi
  tests+=("tests/clients/test_$name.py")
done
[ ${#tests[@]} -eq 0 ] || "$python" -m pytest -m clients "${tests[@]}"

#!/usr/bin/env bash
# Usage: install.sh VENV REQUIREMENT. Creates VENV if need be and installs REQUIREMENT there, with the pinned versions.
set -euo pipefail
venv=$1 requirement=$2
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
if ! "$venv/bin/python" -c 'import importlib.util as u, sys; sys.exit(u.find_spec("llama_cpp") is None)'; then
  echo "Installing. llama-cpp-python compiles llama.cpp from source: about 2 minutes on 2 cores,"
  echo "once (pip keeps the wheel). For a GPU see 'auricle doctor' afterwards."
fi
source "$(dirname "${BASH_SOURCE[0]}")/llama-cpp.sh"
case $requirement in -e*) set -- -e "${requirement#-e }" ;; *) set -- "$requirement" ;; esac
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "$@"

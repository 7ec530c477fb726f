#!/usr/bin/env bash
# The wheel on every Python found (make matrix); with --short on the oldest and the newest alone.
# Each python3.11 ... python3.14 on PATH or below pyenv gets a venv in build/matrix with the newest versions that
# pyproject.toml allows, the oldest Python one more with the lowest (--short: only that). There: ask, caption, listen and
# verify --run on the demo, then the runtime's tests without torch. A table at the end; status 1 when anything failed.
# TESTS: other tests than all, for a quick look (TESTS=audio make matrix).
# Needs build/golden-bundle and build/golden-salm-bundle (`make golden`, or any run of the suite).
set -euo pipefail
cd "$(dirname "$0")/.."
work=$PWD/build/matrix
# llama-cpp-python's wheel serves every Python, so it is compiled once.
shown=(av numpy onnxruntime soxr sounddevice rich wcwidth platformdirs llama-cpp-python)

runs() { "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_pythons() { # one path for each minor version, oldest first
  local minor candidate
  for minor in 11 12 13 14; do
    for candidate in $(type -ap "python3.$minor") "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3."$minor".*/bin/python; do
      if runs "$candidate"; then
        echo "$candidate"
        break
      fi
    done
  done
}

lowest_versions() { # of the dependencies, of [cpu] and of [serve], as constraints
  "$1" - <<'PY'
import re, tomllib

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
extras = project["optional-dependencies"]
for line in project["dependencies"] + extras["cpu"] + extras["serve"]:
    if lower := re.match(r"([\w-]+)(?:\[\w+\])?(?:>=|==)([\w.]+)", line):
        print(f"{lower[1]}=={lower[2]}")
PY
}

answers() ( # BIN OUT: what a user does first, away from the checkout
  clips=$PWD/models/demo/clips demo=$PWD/models/demo
  mkdir -p "$2" && cd "$2" &&
    "$1/auricle" ask "$clips/command.wav" asr >ask.txt && [ -s ask.txt ] &&
    "$1/auricle" caption "$clips/command.wav" "$clips/weather.wav" --format srt --out captions &&
    [ -s captions/command.srt ] && [ -s captions/weather.srt ] &&
    "$1/auricle" listen "$clips/weather.wav" --pace fast --out listen.txt && [ -s listen.txt ] &&
    "$1/auricle" verify "$demo" --run
)

try() { # PYTHON newest|lowest: one row of the table; status 1 when anything failed
  local name bin started=$SECONDS answered=failed tested='cannot be installed' within=()
  name=$("$1" -c 'import platform; print(platform.python_version())')-$2
  bin=$work/$name/bin
  echo "== Python ${name/-/, } versions"
  "$1" -m venv "$work/$name"
  [ "$2" = newest ] || within=(--constraint "$work/lowest.txt")
  if "$bin/python" -m pip install --quiet --find-links "$work/wheels" "${within[@]}" "$wheel[cpu,serve]" &&
    "$bin/python" -m pip install --quiet "${within[@]}" pytest hypothesis jsonschema openai; then
    if answers "$bin" "$work/$name/answers"; then answered=ok; fi
    (cd build && "$bin/python" -m pytest -c ../pyproject.toml --rootdir .. -p no:cacheprovider "../tests/${TESTS:-}" \
      --without-torch) | tee "$work/tests.log" || answered+=', tests failed'
    tested=$(tail -n 1 "$work/tests.log")
    table+="$(versions "$bin/python" "$name")"$'\n'
  fi
  table+=$(printf '%-15s answers %s; %d s; %s' "$name" "$answered" $((SECONDS - started)) "$tested")$'\n'
  rm -rf "${work:?}/$name"
  [ "$answered" = ok ]
}

versions() { # PYTHON NAME: the first cells of a line of the table
  printf '%-15s' "$2"
  "$1" - "${shown[@]}" <<'PY'
import importlib.metadata, sys

print(*(f"{name} {importlib.metadata.version(name)}" for name in sys.argv[1:]), sep="  ", end="")
PY
}

[ -f build/golden-bundle/manifest.json ] && [ -f build/golden-salm-bundle/manifest.json ] || {
  echo "matrix: the golden bundles are not in build/: run make golden first" >&2
  exit 2
}
mapfile -t pythons < <(find_pythons)
[ ${#pythons[@]} -gt 0 ] || {
  echo "matrix: no python3.11 to python3.14 with venv was found on PATH or below pyenv" >&2
  exit 2
}
echo "Found: ${pythons[*]}"
rm -rf "$work" build/lib
mkdir -p "$work/wheels"
oldest=${pythons[0]}
lowest_versions "$oldest" >"$work/lowest.txt"
source scripts/llama-cpp.sh
"$oldest" -m venv "$work/build"
"$work/build/bin/python" -m pip wheel --quiet --no-deps --wheel-dir "$work/wheels" . "$(grep llama "$work/lowest.txt")"
wheel=$(ls "$work"/wheels/auricle-*.whl)
table='' failed=0
try "$oldest" lowest || failed=1
[ "${1:-}" = --short ] && pythons=("${pythons[-1]}")
for python in "${pythons[@]}"; do
  try "$python" newest || failed=1
done
if [ $failed -eq 0 ]; then echo "matrix: everything passed"; else echo "matrix: FAILED"; fi
printf '%s' "$table"
exit $failed

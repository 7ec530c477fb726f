#!/usr/bin/env bash
# What is inside the built wheel and what it needs, with versions and licences: build/sbom.json, CycloneDX 1.6. The wheel
# is installed alone, with its cpu extra, and cyclonedx-py looks at that environment from one of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
tool=build/sbom-tool wheel=build/sbom-venv out=build/sbom.json
[ -x "$tool/bin/cyclonedx-py" ] || { "${PYTHON:-python3}" -m venv "$tool" && "$tool/bin/python" -m pip install --quiet --constraint constraints.txt cyclonedx-bom==7.5.0; }
rm -rf build/sbom-wheel "$wheel"
.venv/bin/python -m pip wheel --quiet --no-deps --wheel-dir build/sbom-wheel .
bash scripts/install.sh "$wheel" "$(ls build/sbom-wheel/auricle-*.whl)[cpu]"
"$wheel/bin/python" -m pip uninstall --quiet --yes pip setuptools 2>/dev/null || true
"$tool/bin/cyclonedx-py" environment --pyproject pyproject.toml --gather-license-texts --output-reproducible \
  --spec-version 1.6 --output-format JSON --output-file "$out.new" "$wheel/bin/python"
.venv/bin/python scripts/sbom-data.py "$out.new" build/sbom-wheel/auricle-*.whl
mv "$out.new" "$out"
echo "$out: $(grep -c '"bom-ref"' "$out") components"

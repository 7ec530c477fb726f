"""Bill of materials of a wheel, in CycloneDX's JSON -> the same with the files of other origin that the wheel carries.

sbom-data.py SBOM WHEEL
"""

from __future__ import annotations

import hashlib
import json
import sys
import zipfile
from pathlib import Path

DATA = {  # what a file's path begins with: kind, licence, where it comes from
    "auricle/models/vad/": ("machine-learning-model", "MIT", "Silero VAD, see auricle/models/vad/README.md"),
    "auricle/models/demo/whisper.onnx": (
        "machine-learning-model",
        "MIT",
        "whisper-tiny.en's encoder (OpenAI), quantized; see auricle/models/demo/LICENSE.whisper-tiny.en.txt",
    ),
    "auricle/models/demo/": ("machine-learning-model", "Apache-2.0", "trained by this project on synthetic speech"),
    "auricle/models/demo-salm/": (
        "machine-learning-model",
        "Apache-2.0",
        "trained by this project on synthetic speech",
    ),
    "auricle/models/small/": ("machine-learning-model", "Apache-2.0", "trained by this project on synthetic speech"),
    "auricle/export/jfk.wav": ("data", "Public Domain", "John F. Kennedy's inaugural address, 1961"),
}
SUFFIXES = (".onnx", ".gguf", ".npz", ".pt", ".pth", ".wav")


def main() -> int:
    """Writes the bill in its place."""
    path, wheel = map(Path, sys.argv[1:])
    bill = json.loads(path.read_text(encoding="utf-8"))
    with zipfile.ZipFile(wheel) as opened:
        for name in sorted(opened.namelist()):
            place = next((place for place in DATA if name.startswith(place)), None)
            if not name.endswith(SUFFIXES):
                continue
            if place is None:
                print(
                    f"sbom: {name} is in the wheel, and nobody said where it comes from: add it to DATA",
                    file=sys.stderr,
                )
                return 1
            kind, licence, origin = DATA[place]
            digest = hashlib.sha256(opened.read(name)).hexdigest()
            licences = [{"license": {"id": licence} if " " not in licence else {"name": licence}}]
            bill["components"].append(
                {
                    "bom-ref": name,
                    "type": kind,
                    "name": name,
                    "description": origin,
                    "hashes": [{"alg": "SHA-256", "content": digest}],
                    "licenses": licences,
                }
            )
    path.write_text(json.dumps(bill, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

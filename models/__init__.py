"""The contract between export, runtime and bench: specs, prompts, the bundle's manifest.

Standard library and numpy only.
"""

import os

# onnxruntime's official builds report to its makers from 1.29 on. It looks at this once, when it is first used.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

"""`python -m auricle`: the command line of the runtime. The other parts have their own: `python -m auricle.export`."""

import sys

from auricle.runtime.__main__ import main

sys.exit(main())

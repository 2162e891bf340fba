"""``python -m flowtrio``."""

from __future__ import annotations

import sys

from flowtrio.cli._main import main

if __name__ == "__main__":
    sys.exit(main())

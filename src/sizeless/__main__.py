"""``python -m sizeless``: the same as the command ``sizeless``."""

from __future__ import annotations

import sys

from sizeless.cli import main

if __name__ == "__main__":
    sys.exit(main())

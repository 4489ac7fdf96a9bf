"""`python -m atelier_runner serve`: a runner as a process of its own."""

from __future__ import annotations

import sys

from atelier_runner.service.command import main

if __name__ == "__main__":
    sys.exit(main())

"""First-load JavaScript in kB gzip (gate 190): the entry and everything that it imports before the first paint."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run the editor's own measure, which also gates `make test`."""
    editor = Path(__file__).parents[1] / "editor-web"
    npm = Path(sys.executable).parent / "npm"
    return subprocess.run([npm, "run", "--silent", "size"], cwd=editor, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env bash
# Everything that `make test` checks, in the order of cost. Ends with pytest's own summary line.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"

step() { printf '\n== %s\n' "$*"; }

step "Lint and types"
ruff check .
ruff format --check .
mypy
lint-imports
step "The editor"
(cd editor-web && npm run --silent test && npm run --silent size)
[ -d server/tests/node/node_modules ] || deploy/setup.sh node server/tests/node
step "The server, the runner, the browser"
exec python -m pytest -n 2 --dist loadfile "$@"

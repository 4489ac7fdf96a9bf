# `make run` opens the product, `make test` checks it; both set up what is missing first.
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
.PHONY: run test build lint types bench bench-hub soak clean
.DEFAULT_GOAL := run

run: .venv/.ready build
	@deploy/setup.sh system-run
	@exec .venv/bin/atelier serve $(ARGS)

test: .venv/.ready-test build
	@deploy/setup.sh system-test
	@deploy/test.sh

build: server/atelier/static/editor/.vite/manifest.json

lint: .venv/.ready-test
	ruff check . && ruff format --check . && mypy && lint-imports

# The API's description and the editor's types of it.
types: .venv/.ready-test editor-web/node_modules/.ready
	atelier openapi > server/openapi.json && cd editor-web && npm run --silent types

bench: .venv/.ready-test build
	@deploy/setup.sh system-test
	@.venv/bin/python -m bench

# The hub beside its peers, which are installed for it; half an hour.
bench-hub: .venv/.ready-test
	@for shape in fan steady typing many; do echo "== $$shape"; .venv/bin/python -m bench.hub.rooms $$shape; done; \
	  echo "== joins"; .venv/bin/python -m bench.hub.joins; \
	  echo "== presence"; .venv/bin/python -m bench.hub.presence; echo "== large"; .venv/bin/python -m bench.hub.large; \
	  echo "== trace"; .venv/bin/python -m bench.hub.trace; echo "== processes"; .venv/bin/python -m bench.hub.processes; \
	  echo "== durability"; .venv/bin/python -m bench.hub.durability

# What takes long: histories beside Yjs', made-up bytes, schedules in which everything breaks and churn, MINUTES each.
soak: .venv/.ready-test build
	@.venv/bin/python -m pytest -q -s server/tests/documents/test_histories.py --histories 10000
	@.venv/bin/python -m pytest -q -s server/tests/hub/test_fuzz.py --fuzz-seconds 60
	@.venv/bin/python -m pytest -q -s server/tests/hub/test_randomized.py -k soak --soak-minutes $(or $(MINUTES),60)
	@.venv/bin/python -m bench.hub.churn --minutes $(or $(MINUTES),60)

clean:
	rm -rf .venv editor-web/node_modules server/tests/node/node_modules server/atelier/static/editor

.venv/.ready: constraints.txt server/pyproject.toml runners/pyproject.toml
	@deploy/setup.sh python && touch $@

.venv/.ready-test: .venv/.ready
	@deploy/setup.sh python-test && touch $@

editor-web/node_modules/.ready: editor-web/package-lock.json .venv/.ready
	@deploy/setup.sh node editor-web && touch $@

EDITOR := $(shell find editor-web/src editor-web/public editor-web/*.html editor-web/*.ts editor-web/package.json -type f 2>/dev/null)
server/atelier/static/editor/.vite/manifest.json: $(EDITOR) editor-web/node_modules/.ready
	@echo "Building the editor" && cd editor-web && npm run --silent build && touch ../$@

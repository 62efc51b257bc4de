# Two targets are enough to start: `make demo` and `make test`. Both make their own environment in .venv.

PYTHON ?= $(firstword $(shell for name in python3 python3.13 python3.12 python3.11; do \
	command -v $$name >/dev/null 2>&1 && $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name; done))
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo

.PHONY: demo test test-engines flink-up flink-down lint bench clean help

help:
	@echo "make demo          sample shards, the main job on them, the verdict"
	@echo "make test          all tests but those of engines and object stores"
	@echo "make test-engines  tests on a real Flink and Spark (Java 17, Maven), a simulated store, a real S3 server and Prism (Go 1.26 or later),"
	@echo "                   Airflow, staging to workers, and what would be sent to Dataflow"
	@echo "make flink-up      a Flink session cluster on this machine (Java 11 or later, Maven), and how to run on it"
	@echo "make flink-down    ends it"
	@echo "make lint          ruff, mypy, hadolint and zizmor"
	@echo "make bench         speed and memory on generated corpora"

$(BIN)/.installed: requirements.lock setup.py
	@test -n "$(PYTHON)" || { echo "anchormix needs Python 3.11 or later; none was found on PATH" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m compileall -q pipeline transforms
	@touch $@

$(BIN)/.consumers: $(BIN)/.installed requirements-consumers.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-consumers.lock
	@touch $@

demo: $(BIN)/.installed
	rm -rf $(DEMO)
	$(BIN)/anchormix init $(DEMO)
	$(BIN)/anchormix run $(DEMO)/quickstart.yaml

test: $(BIN)/.consumers
	$(BIN)/python -m pytest -m "not engine" $(PYTEST)

test-engines: $(BIN)/.consumers
	$(BIN)/python -m pytest -m engine -rs $(PYTEST)

flink-up: $(BIN)/.installed
	$(BIN)/python engines/flink/cluster start

flink-down:
	$(PYTHON) engines/flink/cluster stop

lint: $(BIN)/.consumers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile
	$(BIN)/zizmor --offline --no-progress --quiet .github

bench: $(BIN)/.installed
	$(BIN)/python benchmarks/bench_run.py

clean:
	rm -rf $(VENV) $(DEMO) .cache build dist *.egg-info

# Run `make` to list the targets.
.DEFAULT_GOAL := help
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
# `make` in a generated project finds uv here.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help
help: ## List the targets
	@on= off=; if [ -t 1 ]; then on='\033[1m' off='\033[0m'; fi; awk -F ':.*## ' -v on="$$on" -v off="$$off" \
	  '/^[a-z][a-z-]*:.*## / {printf "  %s%-11s%s %s\n", on, $$1, off, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/.installed ## Generate a project, start it, and follow one request through it
	$(BIN)/python -m scripts.demo

# Tests with containers run alone, because some of them measure.
PARALLEL = -n 6 --dist loadfile
WITH_CONTAINERS = tests/stack/programs tests/stack/e2e tests/faults

.PHONY: test
test: $(VENV)/.installed ## Run all tests (12 minutes); ARGS="tests/service -x" runs a part
ifdef ARGS
	$(BIN)/pytest -ra $(ARGS)
else
	@echo "1 of 2: all tests without containers, six at a time (about 3 minutes)"
	$(BIN)/pytest -ra $(PARALLEL) $(addprefix --ignore=,$(WITH_CONTAINERS))
	@echo "2 of 2: $(WITH_CONTAINERS) (about 9 minutes, and the time to pull images)"
	$(BIN)/pytest -ra $(WITH_CONTAINERS)
endif

.PHONY: test-quick
test-quick: $(VENV)/.installed ## Run the tests that need no containers, except slow ones (2 minutes)
	@echo "The tests that need no containers, except slow ones, six at a time (about 2 minutes)"
	$(BIN)/pytest -ra $(PARALLEL) -m "not long and not slow" $(addprefix --ignore=,$(WITH_CONTAINERS)) $(ARGS)

.PHONY: test-faults
test-faults: $(VENV)/.installed ## Inject faults into a stack that it starts; writes docs/reliability.md (an hour)
	$(BIN)/pytest -ra -m "" tests/faults --report docs/reliability.json $(ARGS)

# The requirements of the service without versions: `    "uvicorn[standard]==0.54.0",` becomes "uvicorn[standard]".
# One command installs all of them, so that the OpenTelemetry packages are compatible with each other.
NEWEST = starlette $(shell sed -n '/^\[dependency-groups\]/q; s/^    "\(.*\)==.*",$$/"\1"/p' '{{cookiecutter.project_slug}}/backend/pyproject.toml')

.PHONY: test-newest
test-newest: $(VENV)/.installed ## Run the tests of the backend with the newest FastAPI, Starlette, uvicorn and OpenTelemetry
	$(BIN)/uv venv --quiet --allow-existing .venv-newest
	$(BIN)/uv pip sync --quiet --python .venv-newest --require-hashes requirements-dev.txt
	$(BIN)/uv pip install --no-config --python .venv-newest --upgrade $(NEWEST)
	$(BIN)/cookiecutter --no-input --default-config --overwrite-if-exists --output-dir .venv-newest . project_slug=newest
	failed=; (cd .venv-newest/newest/backend && ../../bin/pytest) || failed=yes; \
	  .venv-newest/bin/pytest -ra tests/service $(ARGS) || failed=yes; test -z "$$failed"

.PHONY: bench
bench: $(VENV)/.installed ## Measure the overhead of observability; writes docs/performance.md; ARGS="http" for a part
	test -d .venv-bench || $(BIN)/uv venv --quiet .venv-bench
	$(BIN)/uv pip sync --quiet --python .venv-bench --require-hashes requirements-bench.txt
	PATH="$(CURDIR)/.venv-bench/bin:$$PATH" .venv-bench/bin/python -m benchmarks $(ARGS)

.PHONY: lint
lint: $(VENV)/.installed ## Check format, lint and types, and the shell scripts
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/shellcheck .ci/run scripts/*.sh

.PHONY: format
format: $(VENV)/.installed ## Format the code and the dashboards, and apply automatic fixes
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	$(BIN)/python -m scripts.format_dashboards

.PHONY: lock
lock: $(VENV)/.installed ## Update all lock files: of the tests and of the template
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --group dev --output-file requirements-dev.txt
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --group bench --output-file requirements-bench.txt
	$(BIN)/python -m scripts.lock

.PHONY: audit
audit: $(VENV)/.installed ## Check all locked packages for known vulnerabilities
	for lock in requirements-dev.txt requirements-bench.txt '{{cookiecutter.project_slug}}'/backend/requirements/*.txt; do \
	  $(BIN)/uv tool run pip-audit==2.10.1 --disable-pip --require-hashes -r "$$lock" || exit 1; \
	done

.PHONY: clean
clean: ## Delete the virtual environments and all caches
	rm -rf $(VENV) .venv-bench .venv-newest .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find benchmarks hooks scripts tests '{{cookiecutter.project_slug}}' \
	  \( -name __pycache__ -o -name '.*_cache' -o -name .venv \) -prune -exec rm -rf {} +

$(VENV)/.installed: requirements-dev.txt scripts/bootstrap.sh
	scripts/bootstrap.sh
	@touch $@

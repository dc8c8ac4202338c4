# make search | test | check: everything works from a fresh clone.
# The environment is made once, from requirements.lock, and again when that file changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?= --space anchors

.DEFAULT_GOAL := help
.PHONY: help env search test test-more browser matrix check docs bench chaos lock clean

help: ## Print what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

env: $(STAMP) ## Create the environment from the pinned versions

# Compiled once: else each process of a search would compile torch for itself where Python may write no bytecode.
# uv where it is installed, else uv from the environment itself: pip alone takes minutes.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "digit-search needs Python 3.11 to 3.13; name one with: make PYTHON=python3.12 ..." >&2; exit 2; }
	@if command -v uv >/dev/null 2>&1; then \
		test -x $(BIN)/python || uv venv --quiet --python "$$(command -v $(PYTHON))" $(VENV); uv=uv; \
	else \
		$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
			{ echo "Python's venv module is missing; install it (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 2; }; \
		test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); \
		test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv; uv=$(BIN)/uv; \
	fi; \
	echo "installing pinned packages into $(VENV) (about 6 GB with CUDA, and compiling them; once)"; \
	VIRTUAL_ENV="$(CURDIR)/$(VENV)" $$uv pip install --quiet --compile-bytecode --require-hashes --python $(BIN)/python -r requirements.lock && \
	VIRTUAL_ENV="$(CURDIR)/$(VENV)" $$uv pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python -e .
	@touch $@

search: $(STAMP) ## Search: make search ARGS="--space lr_schedules --data FOLDER"
	@$(BIN)/python -m search.run $(ARGS)

# Two test processes beside each other: those that start Ray mostly wait for processes to come up. $(call beside,A,B)
# runs both; the first is printed once the second is done. Logs go to a folder of their own: two runs may overlap.
PLAIN := not ray and not slow and not gpu and not browser and not tools and not site and not package
PYTEST := $(BIN)/python -m pytest -p no:cacheprovider
CORE := tests/digits_core tests/spaces tests/search/policy
LONGEST := tests/search/test_search_ray.py tests/chaos
beside = log=$$(mktemp); { $(PYTEST) $(1); } >"$$log" 2>&1 & first=$$!; $(PYTEST) $(2); second=$$?; \
	wait $$first; first=$$?; cat "$$log"; rm -f "$$log"; test $$first -eq 0 && test $$second -eq 0
test: $(STAMP) ## Run the tests: make test ARGS="tests/spaces -k grid"
ifeq ($(origin ARGS),command line)
	@$(BIN)/python -m pytest $(ARGS)
else
	@$(call beside,-m "ray and not slow" && $(PYTEST) -m "$(PLAIN)" $(CORE),-m "$(PLAIN)" $(CORE:%=--ignore=%))
endif

test-more: $(STAMP) ## Run the slow tests, and those of pages, servers, a notebook, the documentation site and a wheel
	@$(call beside,-m slow $(LONGEST),-m "slow or browser or tools or site or package" $(LONGEST:%=--ignore=%))

browser: ## Install Chromium for the browser tests where there is none (by apt-get; with sudo if you are not root)
	@$(PYTHON) tests/browser.py

matrix: $(STAMP) ## Run all tests as other machines would: make matrix ARGS="--rounds 1 sse 3.13" (hours without ARGS)
	@tests/matrix.sh $(if $(filter command,$(origin ARGS)),$(ARGS))

docs: $(STAMP) ## Build the documentation as a site in site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --site-dir site
	@echo "open site/index.html"

check: $(STAMP) ## Format, lint, types and import contracts
	@$(BIN)/ruff format --check --quiet . || { echo "run: $(BIN)/ruff format ." >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo >$(VENV)/imports.log 2>&1 || { cat $(VENV)/imports.log >&2; exit 1; }
	@git ls-files -z | xargs -0 -r stat -c '%s %n' | awk '$$1 > 4200000 {print "larger than 4 MB: " $$2; bad = 1} END {exit bad}'
	@echo "checks passed"

bench: $(STAMP) ## Time what matters against plain scripts, in short forms, and print one table (needs a quiet machine)
	@$(BIN)/python benchmarks/speed.py all --short

chaos: $(STAMP) ## Kill a search and its writers at random for half an hour: make chaos ARGS="--kills 50 --seed 0"
	@$(BIN)/python tests/chaos/views.py
	@PYTHONPATH=. $(BIN)/python tests/chaos/storm.py $(if $(filter command,$(origin ARGS)),$(ARGS))

lock: ## Pin the newest versions that pyproject.toml allows (needs uv); no addresses are written
	uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header --no-annotate --group dev --extra onnx --extra svhn --extra xlsx --extra mlflow pyproject.toml -o requirements.lock

clean: ## Remove the environment and caches (run folders stay)
	rm -rf $(VENV) build site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

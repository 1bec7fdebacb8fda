# `make demo` runs the main job on real bars; `make test` proves the rest. Both make their own
# environment first: all they need is Python 3.11 to 3.13 and make.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test types kernels lock clean
.DELETE_ON_ERROR:

demo: $(READY)
	@$(BIN)/python examples/demo.py

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory -j 2 types kernels
	$(BIN)/pytest -n 3

types: $(READY)
	$(BIN)/mypy

# Compiled once: else each of the tests' processes would begin with that.
kernels: $(READY)
	@$(BIN)/python -c "from learners import warm_up; warm_up()"

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) tools/environment.py
	@touch $@

# After a change of the dependencies in pyproject.toml (needs uv).
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --all-extras --no-header --no-annotate --quiet pyproject.toml -o requirements.lock

clean:
	rm -rf .venv closeloop-data build dist

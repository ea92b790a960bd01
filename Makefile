# Everything is set up by itself in .venv, from the versions in constraints.txt:
#   make demo [ARGS=--once]   the whole system on this machine, with a push through it
#   make test                 the tests; make test-slow: the long ones
#   make lint                 ruff and mypy
#   make constraints          constraints.txt anew, from the newest versions that setup.cfg allows

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=

.PHONY: demo test test-slow lint constraints clean

demo: $(STAMP)
	@$(BIN)/xmpppush demo $(ARGS)

test: $(STAMP)
	$(BIN)/pytest -m "not slow" $(ARGS)

# Status 5: there are none.
test-slow: $(STAMP)
	$(BIN)/pytest -m slow $(ARGS) || [ $$? -eq 5 ]

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "xmpppush needs Python 3.11 or newer, and $(PYTHON) is none: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,postgres,cluster,webpush]'
	@touch $@

constraints:
	rm -rf $(VENV)/fresh
	$(PYTHON) -m venv $(VENV)/fresh
	$(VENV)/fresh/bin/python -m pip install --quiet --disable-pip-version-check '.[dev,postgres,cluster,webpush]'
	$(VENV)/fresh/bin/python -m pip freeze --all --exclude xmpppush --exclude pip 2>/dev/null | grep -E '^[A-Za-z0-9_.-]+==' > constraints.txt
	rm -rf $(VENV)/fresh

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f twisted/plugins/dropin.cache

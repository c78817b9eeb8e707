# Everything a newcomer or CI needs; each target sets up what it needs first.
#
#   make lab        a whole cloud on this machine, proved, left running
#   make test       all tests
#   make lab-check  as `make lab`, but writes lab-check.json and takes the lab down
#   make conformance  OpenStack's own API test suites; ARGS='--only REGEX' for a part
#   make bench      what things cost, as ratios measured side by side
#   make check      style, types, import rules
#   make lock       compile requirements.lock anew after a change of dependencies

PYTHON ?= /usr/bin/python3
UV := .uv/bin/uv
BIN := .venv/bin
LAB ?= default
# How commands name a lab that is not the one they mean anyway.
NAMED := $(if $(filter default,$(LAB)),, $(LAB))

.PHONY: setup packages lab next-steps lab-check conformance test bench check lock clean

setup: packages .venv/.installed

packages:
	@packaging/install-packages

$(UV): packaging/uv.txt | packages
	@echo "Python: installing uv"
	@$(PYTHON) -m venv .uv
	@.uv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r packaging/uv.txt
	@touch $@

.venv/.installed: requirements.lock pyproject.toml $(UV)
	@echo "Python: installing the locked packages"
	@$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	@$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation \
		--editable .
	@touch $@

lab: setup
	@$(BIN)/calico lab up $(LAB)
	@$(BIN)/calico verify --lab $(LAB)
	@$(MAKE) --no-print-directory next-steps

next-steps:
	@sed 's/@NAME@/$(NAMED)/; s/@LAB@/$(if $(NAMED), --lab$(NAMED))/; s/@LABNAME@/$(LAB)/' docs/next-steps.txt

lab-check: setup
	@CALICO=$(BIN)/calico packaging/lab-check

conformance: setup
	@$(BIN)/python -m calico.conformance $(ARGS)

test: setup check
	@echo "Tests"
	@$(BIN)/python packaging/run-tests

bench: setup
	@for each in benchmarks/*.py; do echo "$$each"; $(BIN)/python "$$each"; done

check: setup
	@echo "Style, types and import rules"
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/mypy tests benchmarks
	@$(BIN)/lint-imports --config pyproject.toml

lock: $(UV)
	@$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url \
		--no-annotate --no-header --all-extras --python-version 3.11 \
		pyproject.toml --output-file requirements.lock

clean:
	rm -rf .uv .venv

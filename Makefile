# Every target works as the first command after a clone: it makes .venv when that is missing.
# `python -m tools VERB` does the work of most, and has the same verbs where there is no make.
PYTHON ?= python3
CONNECTOR ?=
PORT ?= 0
WRITE ?=
FORMAT ?= text
DRY_RUN ?=
MINUTES ?= 20
SEED ?=
PART ?= state
TABLES ?=
PAGES ?=
DELETES ?=
# Recipes take what is typed from the environment, in quotes: it may hold anything.
export CONNECTOR PORT FORMAT MINUTES SEED PART TABLES PAGES DELETES
MUTANTS := build/mutants/.venv
BIN := .venv/bin
INSTALL := -m pip install --quiet --disable-pip-version-check --require-hashes
# A package that was tampered with is mostly found within days: no younger one is taken. Extras are
# kept: pip before 23.3 takes `coverage[toml]` for another package than `coverage`.
LOCK := .venv/bin/uv pip compile --quiet --universal --no-header --python-version 3.10 \
	--generate-hashes --no-strip-extras --exclude-newer "7 days"
CONNECTORS := $(sort $(notdir $(wildcard connectors/*)))

.DEFAULT_GOAL := help
.PHONY: help test test-all check fix vendor demo sandbox bench coverage soak mutants new configure check-config \
	debug reset show schema package deploy packages lock clean needs-connector

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/.ready: requirements-dev.txt
	@echo "Installing the development dependencies into .venv ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python $(INSTALL) -r requirements-dev.txt
	@touch $@

test: check ## Check, then run all tests
	@$(BIN)/python -m pytest -q -n auto --dist worksteal

test-all: check ## All tests at full width, nightly in CI: every case and state, and the packages
	@$(BIN)/python -m pytest -q -n auto --dist worksteal --full -m ""

check: .venv/.ready ## Check copies, module names, templates, lint, format, types, workflows
	@$(BIN)/python -m tools check

fix: .venv/.ready ## Sort imports, format, renew the copies; then say what is left to mend
	@$(BIN)/ruff check --fix-only --quiet
	@$(BIN)/ruff format --quiet
	@$(BIN)/python -m tools vendor
	@$(BIN)/ruff check --quiet

vendor: .venv/.ready ## Copy shared/ into every connector
	@$(BIN)/python -m tools vendor

demo: .venv/.ready ## Sync with every simulator, change its data, sync again (or CONNECTOR=name)
	@$(BIN)/python -m tools demo $${CONNECTOR:+"$$CONNECTOR"}

sandbox: .venv/.ready needs-connector ## Start a simulator: CONNECTOR=name [PORT=8080] [WRITE=1]
	@$(BIN)/python -m tools sandbox "$$CONNECTOR" --port "$$PORT" $(if $(WRITE),--write)

bench: .venv/.ready ## Measure what a sync costs above its floor (or CONNECTOR=name)
	@$(BIN)/python -m benchmarks $${CONNECTOR:+"$$CONNECTOR"}

coverage: .venv/.ready ## List the lines and branches of shared/ and connectors/ that no test runs
	@$(BIN)/python -m pytest -q -n auto --cov --cov-report=term

soak: .venv/.ready ## Run generated schedules for MINUTES=20 (or CONNECTOR=name, SEED=n)
	@$(BIN)/python -m tests.soak $${CONNECTOR:+"$$CONNECTOR"} --minutes "$$MINUTES" $${SEED:+--seed "$$SEED"}

$(MUTANTS)/.ready: requirements-dev.txt Makefile
	@$(PYTHON) -m venv $(MUTANTS)
	@$(MUTANTS)/bin/python $(INSTALL) -r requirements-dev.txt
	@$(MUTANTS)/bin/python -m pip install --quiet --disable-pip-version-check mutmut==3.8.1
	@touch $@

mutants: $(MUTANTS)/.ready ## Find small changes to the code that no test notices: PART=state
	@$(MUTANTS)/bin/python -m tools mutants "$$PART"
	@$(MUTANTS)/bin/python -m tools mutants "$$PART" confirm
	@$(MUTANTS)/bin/python -m tools mutants "$$PART" results

new: .venv/.ready ## Write a further connector: CONNECTOR=name [TABLES= PAGES= DELETES=]
	@$(BIN)/python -m tools new "$$CONNECTOR" --tables "$$TABLES" --pages "$$PAGES" --deletes "$$DELETES"

configure: .venv/.ready needs-connector ## Ask for the settings, into configuration.local.json: CONNECTOR=name
	@$(BIN)/python -m tools configure "$$CONNECTOR"

check-config: .venv/.ready needs-connector ## Call the source with configuration.local.json: CONNECTOR=name
	@$(BIN)/python -m tools check-config "$$CONNECTOR"

debug: .venv/.ready needs-connector ## Run fivetran debug with configuration.local.json: CONNECTOR=name
	@$(BIN)/python -m tools debug "$$CONNECTOR"

reset: .venv/.ready needs-connector ## Forget the state and the rows of local syncs: CONNECTOR=name
	@$(BIN)/python -m tools reset "$$CONNECTOR"

show: .venv/.ready needs-connector ## Show the tables of the last local sync: CONNECTOR=name
	@$(BIN)/python -m tools show "$$CONNECTOR"

schema: .venv/.ready needs-connector ## Show the tables as the destination will have them: CONNECTOR=name
	@$(BIN)/python -m tools schema "$$CONNECTOR" --format "$$FORMAT"

package: .venv/.ready needs-connector ## Make the zip that is deployed, in build/: CONNECTOR=name
	@$(BIN)/python -m tools package "$$CONNECTOR"

deploy: .venv/.ready needs-connector ## Deploy, as the README says: CONNECTOR=name [DRY_RUN=1]
	@$(BIN)/python -m tools deploy "$$CONNECTOR" --destination "$$FIVETRAN_DESTINATION" \
		--connection "$$FIVETRAN_CONNECTION" $(if $(DRY_RUN),--dry-run)

packages: .venv/.ready ## Sync with every zip, each in a new environment (installs from PyPI)
	@$(BIN)/python -m pytest -q -m installs

lock: .venv/.ready ## Pin the newest dependencies that are a week old, with their hashes
	@$(LOCK) --upgrade --group dev --output-file requirements-dev.txt
	@$(LOCK) --upgrade --group deploy --constraint requirements-dev.txt \
		--output-file requirements-deploy.txt

clean: ## Remove .venv and build/
	@rm -rf .venv build

needs-connector:
	@case " $(CONNECTORS) " in *" $$CONNECTOR "*) ;; *) \
		echo "Name a connector, such as CONNECTOR=$(firstword $(CONNECTORS)); there are: $(CONNECTORS)"; exit 2;; esac

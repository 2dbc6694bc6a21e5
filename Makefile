# The two commands: `make up` brings the cloud up and asks it a question, `make test` runs the tests.
PYTHON ?= python3
STACK ?= local
ARGS ?=
WORKERS ?= 2
SWITCHBOARD = .venv/bin/switchboard

.PHONY: help up down clean status doctor pulumi test check lint lock venv
.DEFAULT_GOAL := help

help: ## what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv:
	@$(PYTHON) infra/local/bootstrap.py

up: venv ## everything, from the virtual environment to an answered question
	@$(SWITCHBOARD) up --stack $(STACK)

down: venv ## stop what `make up` started; state and volumes stay
	@$(SWITCHBOARD) down --stack $(STACK)

clean: venv ## remove the stack's state, not the built tools
	@$(SWITCHBOARD) clean --stack $(STACK)

status: venv ## what runs, healthy or not, with addresses
	@$(SWITCHBOARD) status --stack $(STACK) $(ARGS)

doctor: venv ## what is wrong with machine, tools, sites and stack, and how to mend it
	@$(SWITCHBOARD) doctor --stack $(STACK) $(ARGS)

pulumi: venv ## Pulumi with the right environment: make pulumi ARGS="preview --diff"
	@$(SWITCHBOARD) pulumi --stack $(STACK) -- $(ARGS)

test: venv ## the tests (ARGS="tests/models -k loading" for some of them, WORKERS=0 for one process)
	@$(SWITCHBOARD) infra toolchain build
	@$(SWITCHBOARD) infra check --prepare
	@.venv/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: venv ## independent checkers and our policies over all that the stacks declare
	@$(SWITCHBOARD) infra check $(ARGS)

lint: venv ## format and check
	@.venv/bin/ruff format . && .venv/bin/ruff check --fix . && .venv/bin/mypy

lock: venv ## resolve requirements.lock anew
	@.venv/bin/uv pip compile --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
	  --extra dev pyproject.toml --upgrade --output-file requirements.lock --quiet
	@cd infra/checkers && ../../.venv/bin/uv pip compile --universal --generate-hashes --no-emit-index-url \
	  --python-version 3.11 requirements.in --upgrade --output-file requirements.lock --quiet

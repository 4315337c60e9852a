# Each command makes the virtual environment that it needs: nothing to install by hand but Python.
# A rebuild happens when setup.py changed (the file `ready` in the environment is older).

BROKER ?= sqlite
ARGS ?=

.PHONY: help test soak celery-tests demo lint types bench clean

help: ## Show these commands (the default)
	@echo "make test    all tests, on a private RabbitMQ and Redis        ARGS='tests/core -k retry' for some"
	@echo "make soak    random faults for 3 minutes, with a ledger   ARGS='--seed 7 --seconds 60 --broker amqp|redis|sqlite'"
	@echo "make celery-tests   Celery's own integration tests on a Lightbus worker, 45 minutes   ARGS='--broker redis -k chord'"
	@echo "make demo    the shop example, start to end                    BROKER=sqlite (default), a name or a URL"
	@echo "make lint    ruff: mistakes and format"
	@echo "make types   mypy --strict"
	@echo "make bench   speed and weight beside Celery, Dramatiq, Huey and py-amqp    ARGS=--quick for a first look"
	@echo "make clean   remove what these commands made"

test: .venv-test/ready ## All tests
	@.venv-test/bin/python tests/tools/run.py $(ARGS)

soak: .venv-test/ready ## Random faults for a while
	@.venv-test/bin/python -m tests.faults.soak $(ARGS)

celery-tests: .venv-test/ready ## Celery's own integration tests
	@.venv-test/bin/python -m tests.celery_suite $(ARGS)

demo: .venv-demo/ready ## The shop example
	@BROKER='$(BROKER)' .venv-demo/bin/python examples/shop/demo.py $(ARGS)

lint: .venv-dev/ready
	@.venv-dev/bin/ruff check .
	@.venv-dev/bin/ruff format --check .

types: .venv-dev/ready
	@.venv-dev/bin/mypy

bench: .venv-bench/ready
	@.venv-bench/bin/python benchmarks/run.py $(ARGS)

clean:
	rm -rf .venv-test .venv-demo .venv-dev .venv-bench .celery-suite .tox build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv-test/ready .venv-demo/ready .venv-dev/ready .venv-bench/ready: .venv-%/ready: setup.py pyproject.toml tests/tools/venv.sh
	@sh tests/tools/venv.sh .venv-$* $*

# Needs Python 3.10 to 3.14, git and make; everything else goes into .venv.

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
LOCK := requirements/dev.txt
# Programs in Python, whose names do not say so.
SCRIPTS := $(addprefix scripts/,check-bakes check-links make-reference make-screenshots outdated release-check)
# Of the Python that makes .venv; the first that fits is taken.
export PYTHON
# Whole files, in the order in which they are collected, and more than two since some only wait.
PYTEST := $(PY) -m pytest -rs -n 3 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo test unit-test docker-test test-versions coverage lint lock clean bench docs outdated

help:  ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-22s %s\n", $$1, $$2}'

demo: $(READY)  ## Bake a project, run its example Dags through Airflow, show what lies where (no Docker)
	$(PY) demo/demo.py

test: $(READY)  ## Run every test; those with containers when an engine answers
	$(PYTEST) $(ARGS)

unit-test: $(READY)  ## Run the tests without containers
	$(PYTEST) -m 'not docker' $(ARGS)

docker-test: $(READY)  ## Run the tests with containers
	$(PY) -m pytest -rs -m docker $(ARGS)

test-versions: $(READY)  ## Run the payload tests and one Dag on Airflow 3.0 to 3.4
	$(PY) tests/versions/run.py $(ARGS)

coverage: $(READY)  ## Show which lines of the library no test without containers runs
	$(PYTEST) -m 'not docker' --cov --cov-report=term-missing:skip-covered $(ARGS)

bench: $(READY)  ## Measure the backend beside others, write docs/performance.md (ARGS=--quick: only print)
	$(PY) benchmarks/bench.py $(ARGS)

# mypy takes one conftest at a time: each folder in its mypy_path that has one is checked alone.
lint: $(READY)  ## Check style, types and spelling
	$(PY) -m ruff check --config pyproject.toml --extend-ignore I001 .
	$(PY) -m ruff check --select I .
	$(PY) -m ruff format --check .
	$(PY) -m mypy '{{cookiecutter.project_slug}}/include' hooks demo benchmarks scripts/*.py $(SCRIPTS) \
		tests/*.py tests/demo tests/docker tests/versions
	$(PY) -m mypy tests/core
	$(PY) -m mypy tests/payload
	$(PY) -m mypy tests/browser
	$(VENV)/bin/codespell
	$(PY) -m yamllint --strict .github .yamllint.yaml mkdocs.yml
	$(VENV)/bin/shellcheck .ci/run scripts/make-environment
	$(VENV)/bin/zizmor --offline --no-progress --quiet .github

docs: $(READY)  ## Build the documentation as a site in .site, check its links (ARGS=--external: all of them)
	PYTHONPATH=scripts $(VENV)/bin/zensical build --clean --strict
	$(PY) scripts/check-links .site $(ARGS)

lock: $(READY)  ## Resolve requirements/dev.in anew
	$(VENV)/bin/uv pip compile --universal --no-header --no-annotate --python-version 3.10 --upgrade requirements/dev.in -o $(LOCK)

outdated: $(READY)  ## Say which pinned versions are behind: packages, images, Go programs, GitHub actions
	$(PY) scripts/outdated $(ARGS)

clean:  ## Remove what the commands above made, caches inside the template too
	rm -rf $(VENV) .demo .site
	find . -name .git -prune -o \( -name __pycache__ -o -name .hypothesis -o -name .mypy_cache \
		-o -name .pytest_cache -o -name .ruff_cache \) -prune -exec rm -rf {} +

$(READY): $(LOCK) scripts/make-environment
	sh scripts/make-environment $(VENV) $(LOCK)
	@touch $@

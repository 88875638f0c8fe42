# Every task a person or CI runs, one target each. `make help` lists them.
# Everything is called as `python -m …`: the venv then works from a path with spaces.

PYTHON ?= python3
VENV := .venv/bin/python
TEST_PROCESSES ?= 2
UPGRADE ?= --upgrade
PYTEST = $(VENV) -m pytest -n $(TEST_PROCESSES) --dist loadgroup --no-loadscope-reorder --durations=40
# Tools that no part of the project imports, each in an environment of its own, so that the lock has none of them.
TOOL = $(VENV) -m uv --quiet tool run
SBOM = PYTHONWARNINGS=ignore $(TOOL) --from cyclonedx-bom==7.1.0 cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible
PACKAGES := settings.py commands.py executors.py atomic_files.py figure_style.py wine_data wine_quality_training \
  experiment_tracking deployment monitoring orchestration images

# Prefect keeps its database and profile here and not in the home folder, so that what you do
# with another project or with Prefect Cloud is left alone.
export PREFECT_HOME ?= $(CURDIR)/.prefect
export PREFECT_SERVER_ANALYTICS_ENABLED ?= false
export DO_NOT_TRACK ?= 1
export MLFLOW_DISABLE_TELEMETRY ?= true

# Every command is a process, and each would compile some thousand files anew where none is kept.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup pipeline data audit summary serve load load-ui bench-serving mlflow search prefect deploy worker stop \
  simulate monitor tidy drill lab notebooks images test test-all test-fast soak coverage check lint-workflows security sbom \
  system-packages lock clean reset

help: ## list these targets
	@echo "usage: make TARGET"
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS='	' read -r target text; do \
	  printf '  %-16s %s\n' "$$target" "$$text"; done
	@echo "Start with: make pipeline"

setup: .venv/installed ## create .venv with all locked packages (other targets install only what they need)
	@echo "The environment in .venv is ready. Next: make pipeline"

pipeline: .venv/pipeline ## wine data to registered model and serving bundle, and one prediction
	@$(VENV) -m orchestration.flows

data: .venv/pipeline ## download the wines from UCI, if they are not here yet
	@$(VENV) -m wine_data.sources uci

audit: .venv/pipeline ## leaks, repeats and errors in the wines: sentences, a table, a figure
	@$(VENV) -m wine_data.audit

summary: .venv/pipeline ## the result of the last pipeline, in Markdown; with its figures in report/
	@$(VENV) -m orchestration.summary --folder report

serve: .venv/pipeline ## the API on 127.0.0.1:8000 (WINE_PORT)
	@$(VENV) -m deployment.serve

load: .venv/load ## send requests to make serve for 60 s and check every answer (WINE_LOAD_USERS, _RATE, _SECONDS, _P95)
	@$(VENV) -m deployment.load

load-ui: .venv/load ## the same from locust's page, on 127.0.0.1:8089
	@$(VENV) -m deployment.load --ui

bench-serving: .venv/installed ## measure how fast the API answers, on one core (wrk: make system-packages)
	@$(VENV) -m tests.benchmarks.serving_speed

mlflow: .venv/pipeline ## MLflow's pages on 127.0.0.1:5000 (WINE_MLFLOW_PORT): runs, metrics, registry
	@$(VENV) -m experiment_tracking.pages

search: .venv/pipeline ## tune models on leak-free folds, and track every trial
	@$(VENV) -m experiment_tracking.search --minutes 0.6

prefect: .venv/pipeline ## start a Prefect server on 127.0.0.1:4200 (WINE_PREFECT_PORT), in the background
	@$(VENV) -m orchestration.services prefect

deploy: .venv/monitoring ## deploy prefect.yaml to that server; repeat after each change
	@$(VENV) -m orchestration.services deploy

worker: .venv/monitoring ## start a worker that runs scheduled flows, in the background
	@$(VENV) -m orchestration.services worker

stop: .venv/pipeline ## stop that worker and server
	@$(VENV) -m orchestration.services stop

simulate: .venv/monitoring ## send 1,000 generated wines to make serve; simulated tasters grade half of them
	@$(VENV) -m monitoring.simulate --labels 0.5

monitor: .venv/monitoring ## write a page on the API's answers: drift, quality, traffic, alarms
	@$(VENV) -m monitoring.page

tidy: .venv/pipeline ## remove old runs, models, reports and wines that nobody needs (make tidy --dry-run only lists them)
	+@$(VENV) -m experiment_tracking.tidy $(if $(findstring n,$(firstword -$(MAKEFLAGS))),--dry-run)

drill: .venv/monitoring ## run the whole loop once, on its own servers: drift, alarm, retraining, rollback
	@$(VENV) -m orchestration.drill

lab: .venv/notebooks ## open the notebooks in JupyterLab
	@$(VENV) -m jupyter lab

notebooks: .venv/notebooks ## run the notebooks in stage order in .scratch and keep their outputs (WINE_DATA: your files)
	@$(VENV) -m tests.run_notebooks

images: .venv/installed ## take the pictures of the running system again: images/*.png (WINE_DATA: your real files)
	@$(VENV) -m images.capture

test: check ## the checks, and tests of all features
	@$(PYTEST) -m "not full and not clone and not alone"
	@echo "Next: make test-all runs the long tests too, as GitHub does on main"

test-all: check ## every check and test
	@$(PYTEST) -m "not alone"
	@$(VENV) -m pytest -m alone

test-fast: .venv/installed ## the tests without servers, browser and long fits, in a minute
	@$(PYTEST) -m "fast and not alone"

soak: .venv/installed ## break the API under load, 20 times each; millions of predictions; attacks in their long form; hours
	@$(VENV) -m tests.benchmarks.fault_trials
	@$(VENV) -m tests.benchmarks.command_trials
	@$(VENV) -m tests.benchmarks.store_trials
	@$(VENV) -m tests.benchmarks.prefect_trials
	@$(VENV) -m tests.benchmarks.soak
	@$(VENV) -m tests.benchmarks.open_loop
	@$(VENV) -m tests.benchmarks.year_of_schedules
	@$(VENV) -m tests.benchmarks.step_trials
	@$(VENV) -m tests.benchmarks.registry_orders
	@$(VENV) -m tests.benchmarks.mutants
	@$(VENV) -m tests.benchmarks.hostile_cases

coverage: .venv/installed ## which lines the tests reach, by package: those of make test, and all
	@$(VENV) -m tests.coverage_by_room

check: .venv/installed ## ruff, mypy, import layers, and the sizes of functions and files
	@$(VENV) -m ruff check .
	@$(VENV) -m ruff format --check .
	@$(VENV) -m mypy $(PACKAGES) tests
	@$(VENV) -c "from importlinter.cli import lint_imports_command; lint_imports_command()"
	@$(VENV) -m tests.size_limits

lint-workflows: .venv/installed ## workflows, Dockerfile, compose.yaml and forms, by their linters and schemas
	@$(VENV) -m tests.lint_workflows

security: .venv/installed ## known vulnerabilities: bandit on the code, pip-audit on both locks
	@$(TOOL) bandit==1.8.6 --quiet --configfile pyproject.toml --recursive $(PACKAGES)
	@$(TOOL) pip-audit==2.9.0 --strict --disable-pip --requirement requirements.txt --requirement deployment/requirements.txt
	@echo "Nothing was found. Next: SECURITY.md says what is not protected"

sbom: .venv/uv ## list the packages of the project and of the serving image, as CycloneDX: report/sbom*.json
	@mkdir -p report
	@$(SBOM) --output-file report/sbom.json requirements.txt
	@$(SBOM) --output-file report/sbom-serving.json deployment/requirements.txt
	@echo "report/sbom.json and report/sbom-serving.json are written"

# The one program alone: the package would start a server.
PROMTOOL = dpkg-deb --fsys-tarfile prometheus_*.deb | tar -xO ./usr/bin/promtool > /usr/local/bin/promtool

system-packages: ## install Debian packages for some tests and benchmarks: a browser, wrk, PostgreSQL, libfaketime, promtool (needs root)
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || missing=chromium; \
	command -v wrk >/dev/null || missing="$$missing wrk"; \
	ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing="$$missing postgresql"; \
	ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || missing="$$missing libfaketime"; \
	command -v promtool >/dev/null || alone=promtool; \
	[ -z "$$missing$$alone" ] || apt-get update -qq; \
	for package in $$missing; do apt-get install -y -qq --no-install-recommends $$package || \
	  echo "not installed: $$package. Tests that need it will be skipped, and make bench-serving needs wrk" >&2; done; \
	[ -z "$$alone" ] || { cd "$$(mktemp -d)" && apt-get download -qq prometheus && $(PROMTOOL) && chmod +x /usr/local/bin/promtool; } || \
	  echo "not installed: promtool. Tests that need it will be skipped" >&2

lock: .venv/installed ## compile the two requirements.txt again from pyproject.toml (UPGRADE=: only what changed there)
	@$(VENV) -m uv pip compile pyproject.toml --all-extras --universal --fork-strategy fewest \
	  --python-version 3.11 --generate-hashes --custom-compile-command 'make lock' \
	  $(UPGRADE) --quiet --output-file requirements.txt
	@$(VENV) -m uv pip compile pyproject.toml --constraint requirements.txt --universal --fork-strategy fewest \
	  --python-version 3.11 --generate-hashes --custom-compile-command 'make lock' \
	  $(UPGRADE) --quiet --output-file deployment/requirements.txt
	@echo "requirements.txt and deployment/requirements.txt are compiled. Next: make test"

clean: ## remove caches; models, stores and .venv stay
	@rm -rf .coverage .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .schemathesis
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

reset: ## remove the tracking store, the flow history and all models (asks first)
	@printf 'Remove mlflow.db, mlartifacts, .prefect and every model of this folder? [y/N] '; \
	read -r answer; case "$$answer" in [yY]*) \
	  rm -rf mlflow.db* mlartifacts .prefect wine_quality_training/models deployment/models monitoring/reports report; \
	  echo "Gone. Next: make pipeline";; \
	*) echo "Nothing was removed."; exit 0;; esac; \
	[ -e deployment/predictions.db ] || exit 0; \
	printf 'Remove the prediction log too, deployment/predictions.db, with the grades that tasters gave? [y/N] '; \
	read -r answer; case "$$answer" in [yY]*) rm -f deployment/predictions.db*; echo "Gone too.";; \
	*) echo "The log was kept.";; esac

# Set-up, from nothing but Python, make and the package index. uv comes first, at the version and digest that the lock
# names, and installs the rest: for a stage its extras of pyproject.toml, for the tests all of the lock. The file that
# each rule makes says that it is complete: an interrupted set-up is taken up again, and a finished one costs nothing.
STAGES := .venv/pipeline .venv/monitoring .venv/load .venv/notebooks
INSTALL = $(VENV) -m uv pip install --python $(VENV) --require-hashes --requirements pyproject.toml --constraints requirements.txt
IN_PLACE = $(VENV) -m uv pip install --python $(VENV) --quiet --no-deps --no-build-isolation --editable .
FAILED = { echo "The packages could not be installed: the lines above say why. Run the same command again to go on." >&2; exit 3; }

.venv/pipeline: EXTRAS = pipeline
.venv/monitoring: EXTRAS = pipeline monitoring
.venv/load: EXTRAS = pipeline load
.venv/notebooks: EXTRAS = pipeline monitoring load s3 notebooks

$(STAGES): .venv/uv
	@echo "Installing the packages of this stage into .venv: $(EXTRAS) ..."
	@$(INSTALL) $(EXTRAS:%=--extra %) && $(IN_PLACE) || $(FAILED)
	@touch $@

.venv/installed: .venv/uv
	@echo "Installing all locked packages into .venv (about 1.9 GB) ..."
	@$(VENV) -m uv pip sync --python $(VENV) --require-hashes requirements.txt && $(IN_PLACE) || $(FAILED)
	@touch $(STAGES) $@

.venv/uv: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null || { \
	  echo "Python 3.11 to 3.14 is needed, and '$(PYTHON)' is none of them: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -m venv .venv >/dev/null 2>&1 || { \
	  echo "'$(PYTHON) -m venv' failed. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 3; }
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.txt > .venv/uv.txt
	@$(VENV) -m pip install --quiet --disable-pip-version-check --retries 1 --require-hashes -r .venv/uv.txt 2> .venv/setup.log || { \
	  echo "uv could not be installed: $$(tail -n 1 .venv/setup.log) (more in .venv/setup.log)" >&2; exit 3; }
	@touch $@

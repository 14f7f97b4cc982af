# Needs only make and a python3 of 3.11 or newer with venv. Bare `make` tells what there is.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=

# No index is named anywhere: pip takes packages from wherever this machine is set up to take them,
# and the hashes in requirements/ decide whether they are the right ones.
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help env demo test redis7 prometheus chromium check format chaos crash-points term-instants mutants reliability sim soak soak-rate durability failover fuzz strace rate bench canaries pins docker-check sbom clean python3-check

help: ## what there is to make
	@echo "cancelq: make <target>"
	@sed -n 's/^\([a-z][a-z0-9-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf '  %-14s %s\n' "$$name" "$$text"; done

env: $(VENV)/.project $(VENV)/.tools ## the project and its tools in .venv, from hashed pins

demo: $(VENV)/.project ## embedded server, simulated venues, workers and producers; ends with an audit
	$(BIN)/cancelq demo $(ARGS)

# One process more than there are processors: many tests wait for a venue's clock.
test: env redis7 strace prometheus chromium ## all tests (ARGS="-k name" for some)
	$(BIN)/python -m pytest -n $$($(BIN)/python -c 'import os; print(1 + (os.cpu_count() or 1))') --dist worksteal $(ARGS)

check: env ## lint, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: env ## puts the code into the form that `check` wants
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

SECONDS ?= 120
SEED    ?=
VENUE   ?= all
chaos: env ## real processes, everything failing at once, then every promise judged (SECONDS=120 SEED=7 VENUE=bybit)
	$(BIN)/python -m ops.chaos --seconds $(SECONDS) --venue $(VENUE) $(if $(SEED),--seed $(SEED)) \
		--result build/chaos.json $(ARGS)

# SEEDS is a number or from-to. One SEED alone is told step by step; LENGTH must be that of the run that broke.
SEEDS   ?= 1000
LENGTH  ?= 1.0
MINUTES ?= 60
sim: env ## seeded simulation on virtual time, each run judged (SEEDS=1000, SEEDS=500-900, SEED=413 LENGTH=0.5)
	$(BIN)/python -m ops.sim --length $(LENGTH) $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) $(ARGS)

soak: env ## new seeds of the simulation for so long; its figures are added to ops/sim-results.json (MINUTES=60)
	$(BIN)/python -m ops.sim --length $(LENGTH) --minutes $(MINUTES) --result ops/sim-results.json $(ARGS)

soak-rate: env ## the same for runs of a virtual minute under a backlog, judged by the limits (MINUTES=60)
	$(BIN)/python -m ops.sim --rate --minutes $(MINUTES) --result ops/sim-rate-results.json $(ARGS)

fuzz: env ## hostile inbox entries and venue answers, each judged by an oracle (SEED=7 ARGS="--inputs 1000000")
	$(BIN)/python -m tests.fuzz.soak $(if $(SEED),--seed $(SEED)) $(ARGS)

crash-points: env ## a fault at each step of a cancel's way, at each venue (ARGS="--venue bitget --flow cancel"); half an hour
	$(BIN)/python -m ops.crash_points $(ARGS)

INSTANTS ?= 200
term-instants: env ## workers told to end at random instants: nothing is lost, nothing sent again (INSTANTS=200 SEED=7)
	$(BIN)/python -m ops.term_instants --instants $(INSTANTS) $(if $(SEED),--seed $(SEED)) $(ARGS)

durability: env strace ## torn files, power cuts, full disk and memory, judged from keys alone (SEED=7 ARGS="--parts torn --cuts 1000")
	$(BIN)/python -m ops.durability $(if $(SEED),--seed $(SEED)) $(ARGS)

FAILOVERS ?= 20
failover: env ## masters lost under load, one after the other; every confirmed intent looked for (FAILOVERS=20 SEED=7)
	$(BIN)/python -m ops.failover --failovers $(FAILOVERS) $(if $(SEED),--seed $(SEED)) --result build/failover.json $(ARGS)

RATE ?= drain-far drain-near stalls long-stalls near-and-far bybit bingx crowd killed drops
rate: env ## ten minutes of real workers at the venues' limits, counted by a venue of its own (RATE="stalls crowd")
	PYTHONPATH=ops/bench $(BIN)/python -m rate --json build/rate.json $(RATE) $(ARGS)

canaries: env ## chaos with made-up secrets, which must not be found in anything it leaves behind (SECONDS=60 SEED=7)
	$(BIN)/python -m ops.canaries --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) --result build/canaries.json $(ARGS)

mutants: env redis7 ## breaks the product on purpose, in a copy, and shows that the suite notices (ARGS="no-fence --jobs 1")
	$(BIN)/python -m ops.mutants --result build/mutants.json $(ARGS)

reliability: env ## puts the figures of the kept runs (ops/*.json) into docs/RELIABILITY.md
	$(BIN)/python -m ops.reliability

bench: env ## measures speed and counts broken rules (ARGS="--parts peers": beside RQ, Celery, ccxt and others)
	$(BIN)/python ops/bench/bench.py $(ARGS)

docker-check: env ## Dockerfile and compose file, and the image's steps done by hand in a clean environment
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec ops/compose.yaml
	rm -rf build/image build/wheel
	$(PYTHON) -m venv build/image
	build/image/bin/python -m pip install --quiet --require-hashes -r requirements/run.txt
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir build/wheel .
	build/image/bin/python -m pip install --quiet --no-deps build/wheel/*.whl
	build/image/bin/python -m pip check
	cd build && image/bin/cancelq --version
	cd build && image/bin/cancelq --help

# The tools' pins hold to the run pins, so that what is tested is what is shipped.
UV_COMPILE = $(BIN)/uv --no-config pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command "make pins" $(PINS_ARGS)

pins: env ## remakes requirements/ from pyproject.toml and requirements/peers/*.in (PINS_ARGS="--upgrade" for the newest)
	$(UV_COMPILE) pyproject.toml --output-file requirements/run.txt
	$(UV_COMPILE) pyproject.toml --group dev --constraints requirements/run.txt --output-file requirements/test.txt
	$(UV_COMPILE) --group build --constraints requirements/test.txt --output-file requirements/build.txt
	@for peer in requirements/peers/*.in; do \
		$(UV_COMPILE) $$peer --output-file $${peer%.in}.txt || exit 1; done
	@if grep -n -E '://|^ *-' requirements/*.txt requirements/peers/* | grep -v -E ':    --hash=sha256:[0-9a-f]{64}( \\)?$$'; then \
		echo "requirements/ must name no place that packages come from"; exit 1; fi

sbom: env ## the bill of materials of what the pins install, as CycloneDX, in build/sbom.cdx.json
	$(BIN)/python ops/sbom.py $(ARGS)

clean: ## removes everything that was made here
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find producers worker tests ops -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.run: requirements/run.txt requirements/build.txt
	@$(MAKE) --no-print-directory python3-check
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/run.txt -r requirements/build.txt
	@touch $@

$(VENV)/.project: $(VENV)/.run pyproject.toml
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# The tools come last and apart: the demo does without them, and they are most of the download.
$(VENV)/.tools: $(VENV)/.run requirements/test.txt
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/test.txt
	@touch $@

python3-check:
	@command -v $(PYTHON) >/dev/null || { \
		echo "cancelq needs Python 3.11 or newer, and there is no $(PYTHON): install it, or name another (make PYTHON=python3.12 …)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "cancelq needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1): name another (make PYTHON=python3.12 …)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments: it lacks ensurepip (Debian, Ubuntu: apt-get install python3-venv)"; exit 1; }

# The tests run against this server too. Where it cannot be had they say so and run against the embedded one alone.
# RUNLEVEL=1 keeps Debian's package from starting a server of its own.
redis7:
	@if ! command -v redis-server >/dev/null && [ ! -x /usr/bin/redis-server ]; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "installing Debian's redis-server for the tests"; \
			{ apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
				apt-get install -y -qq --no-install-recommends redis-server; } </dev/null >/dev/null 2>&1 \
			|| echo "NOTE: redis-server could not be installed; tests against it will be skipped"; \
		else \
			echo "NOTE: there is no redis-server here; tests against it will be skipped"; \
		fi; \
	fi

# A power cut is simulated from a trace of the server's writes and syncs.
strace:
	@if ! command -v strace >/dev/null; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "installing Debian's strace for the tests"; \
			{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
				apt-get install -y -qq --no-install-recommends strace; } </dev/null >/dev/null 2>&1 \
			|| echo "NOTE: strace could not be installed; tests with it will be skipped"; \
		else \
			echo "NOTE: there is no strace here; tests with it will be skipped"; \
		fi; \
	fi

# The report of an audit is opened in this browser.
chromium:
	@if ! command -v chromium >/dev/null; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "installing Debian's chromium for the tests"; \
			{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
				apt-get install -y -qq --no-install-recommends chromium; } </dev/null >/dev/null 2>&1 \
			|| echo "NOTE: chromium could not be installed; the test with it will be skipped"; \
		else \
			echo "NOTE: there is no chromium here; the test with it will be skipped"; \
		fi; \
	fi

# The tests let this server scrape a worker, and its promtool judge the metrics and the alert rules.
prometheus:
	@if ! command -v prometheus >/dev/null && [ ! -x /usr/bin/prometheus ]; then \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "installing Debian's prometheus for the tests"; \
			{ apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive \
				apt-get install -y -qq --no-install-recommends prometheus; } </dev/null >/dev/null 2>&1 \
			|| echo "NOTE: prometheus could not be installed; tests with it will be skipped"; \
		else \
			echo "NOTE: there is no prometheus here; tests with it will be skipped"; \
		fi; \
	fi

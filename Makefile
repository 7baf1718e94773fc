# rushes: `make serve` is all it takes. Everything is installed into .venv here, with pip, and needs nothing but Python.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
LOCK := pyproject.toml constraints.txt
# Two threads beside other work can be twenty times slower than one, and tests share their machine.
TEST_ENV := OMP_NUM_THREADS=1
# As many as there are cores, up to eight: with more, what is promised within a second is late.
TEST_WORKERS := $(shell n=$$(nproc 2>/dev/null || echo 2); [ "$$n" -lt 8 ] && echo "$$n" || echo 8)

PROMPT ?= a red ball rolls over a green meadow
OUT ?= film.mp4

.PHONY: help serve generate engines test test-long test-queue gpu-check kernels-check lint format clean

help: ## Show this list
	@echo "make serve                                  start the server on http://127.0.0.1:8000"
	@echo "make generate PROMPT=\"...\" OUT=film.mp4     make one video without the server"
	@echo "make engines                                build every engine package that this machine can"
	@echo "make test                                   lint, types, layers and tests"
	@echo "make test-long                              the proofs that take minutes"
	@echo "make test-queue REDIS_SERVER=<binary>       the queue's tests on another Redis or Valkey"
	@echo "make lint                                   lint, types and layers alone"
	@echo "make format                                 put the code into its usual form"
	@echo "make clean                                  remove .venv (never the state folder)"
	@echo
	@echo "ARGS=\"...\" adds options to serve and generate. TORCH_INDEX=<index> takes torch from another package"
	@echo "index, such as one of CPU builds, which spares gigabytes on a machine without an NVIDIA GPU."

serve: $(VENV)/installed ## Start the server
	@exec $(VENV)/bin/rushes serve $(ARGS)

generate: export FILM_PROMPT = $(value PROMPT)
generate: export FILM_OUT = $(value OUT)
generate: $(VENV)/installed ## Make one video
	@exec $(VENV)/bin/rushes generate --prompt "$$FILM_PROMPT" --out "$$FILM_OUT" $(ARGS)

engines: $(VENV)/installed-dev ## Build every engine package that this machine can: build/engines
	@exec $(VENV)/bin/rushes engines build --all --scorer text-alignment $(ARGS)

test: lint ## Run everything that must be green
	$(TEST_ENV) $(PY) -m pytest -m "not long and not gpu" -n $(TEST_WORKERS) --dist worksteal $(ARGS)

test-long: $(VENV)/installed-dev
	$(TEST_ENV) $(PY) -m pytest -m "long and not gpu" --timeout=3600 $(ARGS)

test-queue: $(VENV)/installed-dev
	@test -n "$(REDIS_SERVER)" || { echo "say which: make test-queue REDIS_SERVER=/usr/bin/redis-server" >&2; exit 2; }
	$(TEST_ENV) $(PY) -m pytest tests/server/queue tests/server/api tests/server/webhooks tests/server/worker \
	  --redis-server "$(REDIS_SERVER)" $(ARGS)

gpu-check: $(VENV)/installed-dev ## Run what needs an NVIDIA GPU, on one, and time it; build/gpu-check/report.json
	@$(PY) -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || \
	  { echo "torch sees no NVIDIA GPU here, so there is nothing to check" >&2; exit 2; }
	$(PY) -m tests.gpu_check build/gpu-check $(ARGS)

kernels-check: $(VENV)/installed-dev ## Compile the operators by another Triton than the pinned one
	@test -n "$(TRITON)" || { echo "say which: make kernels-check TRITON=3.9.0" >&2; exit 2; }
	$(PIP) install --quiet --no-deps --upgrade --target build/triton-$(TRITON) triton==$(TRITON)
	PYTHONPATH=build/triton-$(TRITON) $(VENV)/bin/rushes bench kernels $(ARGS)

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/pyright
	$(VENV)/bin/lint-imports

format: $(VENV)/installed-dev
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format

clean:
	rm -rf $(VENV)

# A stamp is written last, so that an interrupted installation is taken up again.
$(VENV)/installed: $(LOCK) | $(VENV)/bin/python
	@$(call install,.)
	@touch $@

$(VENV)/installed-dev: $(LOCK) | $(VENV)/bin/python
	@$(call install,.[dev])
	@touch $(VENV)/installed $@

$(VENV)/bin/python:
	@for candidate in $(PYTHON) python3 python3.12 python3.11; do \
	  if "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then \
	    found="$$candidate"; break; \
	  fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "rushes needs Python 3.11 or 3.12 and found neither; install one, or name it: make PYTHON=/path/to/python3.11 ..." >&2; \
	  exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "this Python cannot make virtual environments; install its venv package (Debian, Ubuntu: python3-venv)" >&2; \
	  exit 1; \
	fi; \
	echo "making $(VENV) with $$("$$found" --version)"; \
	"$$found" -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }

# $(1) is what pip calls a requirement. A torch that is there already, of whatever build, is kept.
define install
if [ -n "$(TORCH_INDEX)" ]; then \
  echo "installing torch from TORCH_INDEX"; \
  $(PIP) install --index-url "$(TORCH_INDEX)" -c constraints.txt torch || exit 1; \
elif [ ! -e /proc/driver/nvidia/version ] && ! command -v nvidia-smi >/dev/null; then \
  echo "no NVIDIA driver found: TORCH_INDEX=<index of CPU builds> would spare gigabytes (README, Install)"; \
fi; \
echo "installing rushes into $(VENV), which takes minutes the first time"; \
$(PIP) install -c constraints.txt -e "$(1)"
endef

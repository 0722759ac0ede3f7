# make demo | test | lint | sanitize | cuda | fuzz | soak | bench | docs | setup | clean | help
# Every target sets up what it needs in .venv (ROS 2 included, from pinned wheels) and skips what is done already.
# On a machine that has ROS 2, build with colcon instead: docs/vehicle.md.

SHELL  := /bin/bash -o pipefail
PYTHON ?= python3
INPUT  ?= simulated
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --disable-pip-version-check
STAMPS := $(VENV)/stamps
OPS    := sbnet_perception/_ops.so

# The tests that the sanitizers watch; test_layer_ops runs itself once per instruction set of the machine
SANITIZED := $(wildcard test/test_ops*.py test/test_mask_ops.py test/test_layer*.py test/test_pixels.py) \
             $(wildcard test/test_voxelize.py test/test_boxes.py test/test_quantized_layers.py test/test_zero_rows.py)

# A sourced ROS would come before the wheels of .venv: recipes do not see it, and nothing outside .venv is changed.
SOURCED_ROS := $(if $(AMENT_PREFIX_PATH),$(or $(ROS_DISTRO),another installation))
unexport PYTHONPATH PYTHONHOME AMENT_PREFIX_PATH COLCON_PREFIX_PATH CMAKE_PREFIX_PATH
unexport ROS_DISTRO ROS_VERSION ROS_PYTHON_VERSION RMW_IMPLEMENTATION _ROS_WHEELS_BOOTSTRAP_COMPLETE
ifneq ($(SOURCED_ROS),)
unexport LD_LIBRARY_PATH
endif

# rcl keeps its logs below HOME and refuses to start without one; some CI systems set none.
ifeq ($(and $(HOME),$(wildcard $(HOME)/.)),)
export HOME := $(CURDIR)/build/home
$(shell mkdir -p $(HOME))
endif

.PHONY: demo test test-fleet reliability lint sanitize cuda fuzz soak bench docs setup clean help check
.DELETE_ON_ERROR:

help:
	@echo "make demo    a simulated drive through the node over DDS: table, demo/out.mcap, pictures"
	@echo "make test    all tests, linters included"
	@echo "make test-fleet  the tests that need Ray, which it installs"
	@echo "make reliability  the tests that provoke faults, and docs/reliability.md of what they saw"
	@echo "make lint    ruff, mypy and the order of imports"
	@echo "make bench   layers, network and pipeline beside the best dense ones, and the node: docs/bench (an hour and a half"
	@echo "             on a quiet machine); INPUT=... runs the pipeline on a bag, a log or frames instead of simulated drives"
	@echo "make sanitize  the tests of the ops and layers, stopped by wrong memory accesses and undefined behaviour"
	@echo "make cuda    the kernels of a GPU, without one: compiled for all architectures, on the CPU under the sanitizers"
	@echo "make fuzz    COUNT=1000000 random and hostile inputs to decoders and operations, under the sanitizers"
	@echo "make soak    the node under load for MINUTES=60, with faults mixed in: memory, files, threads, latency, answers"
	@echo "make docs    what the Python modules offer, as web pages: build/api/index.html"
	@echo "make setup   .venv, compiled ops and message packages only"
	@echo "make clean   removes what was built and recorded; .venv stays (remove it by hand)"
	@echo "Variables: PYTHON=python3.12 to choose an interpreter (3.10 to 3.13). pip is used as you have configured it;"
	@echo "with an index of CPU wheels for torch, PIP_EXTRA_INDEX_URL spares some gigabytes of GPU libraries."

demo: setup
	@$(BIN)/sbnet demo

# Files go to two processes; each test has a DDS domain of its own.
test: setup $(STAMPS)/test-requirements
	@$(BIN)/python -m pytest -n 2 --dist loadfile test

# The tests that need Ray (70 MB), which make test does without: a cluster of two nodes on this machine
test-fleet: setup $(STAMPS)/test-requirements
	@$(PIP) -q --no-build-isolation -e '.[fleet]'
	@$(BIN)/python -m pytest test/test_fleet_on_ray.py

# The tests that provoke faults; docs/reliability.md is made of what they saw
reliability: setup $(STAMPS)/test-requirements
	@$(BIN)/python -m pytest -n 2 --dist loadfile --reliability docs/reliability.md test

lint: setup $(STAMPS)/test-requirements
	@$(BIN)/python -m pytest -q test/test_style.py

# A mistake ends the tests with its place in C++ and in Python. SBNET_SANITIZE has the kernels of ops/cuda watched too.
# Leaks are left out: Python keeps memory until its end.
# A library that does not load is an error here. Only a failing operator new cannot be tried: the sanitizer ends there.
sanitize: export ASAN_OPTIONS = abort_on_error=1 detect_leaks=0 allocator_may_return_null=1
sanitize: export UBSAN_OPTIONS = abort_on_error=1 print_stacktrace=1
sanitize: setup $(STAMPS)/test-requirements
	@echo "== build/sanitize: compiled ops with address and undefined-behaviour sanitizers"
	@$(BIN)/python setup.py -q build_ext --sanitize --build-lib=build/sanitize --build-temp=build/sanitize/objects
	@LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
	 SBNET_SANITIZE=1 SBNET_OPS=$(CURDIR)/build/sanitize/$(OPS) $(BIN)/python -m pytest --capture=sys \
	 -W "error:operations run in plain PyTorch:RuntimeWarning" \
	 -k "not (does_not_fit_in_memory and reduce_mask)" $(SANITIZED)

# What takes too long for `make test`, which compiles the kernels for one architecture and runs them unwatched
cuda: export SBNET_ALL_OF_CUDA = 1
cuda: setup $(STAMPS)/test-requirements
	@$(BIN)/python -m pytest -n 2 --dist loadfile test/test_build_cuda.py test/test_cuda_races.py

# Random and hostile inputs, all of which follow from SEED: COUNT of them, on every instruction set, under the sanitizers
COUNT ?= 1000000
SEED  ?= 1
fuzz: export ASAN_OPTIONS = abort_on_error=1 detect_leaks=0 allocator_may_return_null=1
fuzz: export UBSAN_OPTIONS = abort_on_error=1 print_stacktrace=1
fuzz: setup
	@echo "== build/sanitize: compiled ops with address and undefined-behaviour sanitizers"
	@$(BIN)/python setup.py -q build_ext --sanitize --build-lib=build/sanitize --build-temp=build/sanitize/objects
	@LD_PRELOAD="$$(g++ -print-file-name=libasan.so) $$(g++ -print-file-name=libubsan.so)" \
	 SBNET_OPS=$(CURDIR)/build/sanitize/$(OPS) $(BIN)/python tools/fuzz/fuzz.py --count $(COUNT) --seed $(SEED)

# The node under load with faults mixed in, for MINUTES
MINUTES ?= 60
soak: setup
	@$(BIN)/sbnet soak --minutes $(MINUTES)

bench: setup
	@mkdir -p docs/bench
	@$(BIN)/sbnet bench units --json docs/bench/units.json
	@$(BIN)/sbnet bench units --sweep --json docs/bench/sweep.json --plot docs/bench/sweep.png
	@$(BIN)/sbnet bench network --grid paper --frames 12 --rounds 1 --json docs/bench/network.json --plot docs/bench/network.png
	@$(BIN)/sbnet bench pipeline $(INPUT) --grid paper --json docs/bench/pipeline_paper.json
	@$(BIN)/sbnet bench pipeline $(INPUT) --json docs/bench/pipeline_compact.json
	@$(BIN)/sbnet bench node --json docs/bench/node.json

docs: setup $(STAMPS)/docs-requirements
	@$(BIN)/python -m pdoc --docformat google -o build/api sbnet_perception '!sbnet_perception._ops'
	@echo "build/api/index.html"

setup: check $(STAMPS)/package $(STAMPS)/interfaces $(OPS)

clean:
	rm -rf build install log demo sbnet_perception.egg-info $(OPS) $(STAMPS)/package

# --- what make cannot install itself: one line each, with the remedy
fail = { echo "sbnet_perception: $(1)" >&2; exit 1; }

check:
	@[ "$$(uname -s) $$(uname -m)" = "Linux x86_64" ] || $(call fail,ROS 2 wheels exist for Linux on x86_64 only; here install ROS 2 itself and build with colcon (docs/vehicle.md))
	@command -v $(PYTHON) >/dev/null || $(call fail,$(PYTHON) is missing. Remedy: sudo apt install python3 python3-venv)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || $(call fail,$(PYTHON) is $$($(PYTHON) -V 2>&1) but 3.10 to 3.13 is needed. Remedy: make PYTHON=python3.12)
	@[ -x $(BIN)/python ] || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(call fail,$(PYTHON) has no venv. Remedy: sudo apt install python3-venv)
	@command -v g++ >/dev/null || $(call fail,g++ is missing. Remedy: sudo apt install g++)
	@$(if $(SOURCED_ROS),echo "ROS 2 ($(SOURCED_ROS)) is sourced: make leaves it alone and uses its own wheels in $(VENV); docs/vehicle.md tells how to build for it.",:)

# --- set-up, each step once
$(STAMPS)/venv: | check
	@echo "== $(VENV): a virtual environment"
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/requirements: requirements.txt $(STAMPS)/venv
	@echo "== $(VENV): pinned dependencies, ROS 2 included"
	@$(PIP) -r requirements.txt | { grep --line-buffered -v "already satisfied" || true; }
	@touch $@

$(STAMPS)/test-requirements: requirements-test.txt $(STAMPS)/requirements
	@echo "== $(VENV): test tools"
	@$(PIP) -q -r requirements-test.txt
	@touch $@

$(STAMPS)/docs-requirements: requirements-docs.txt $(STAMPS)/requirements
	@echo "== $(VENV): what makes the pages"
	@$(PIP) -q -r requirements-docs.txt
	@touch $@

$(STAMPS)/interfaces: $(shell find interfaces -type f) $(STAMPS)/requirements
	@echo "== message packages that no registry carries"
	@$(BIN)/python interfaces/generate.py
	@touch $@

$(OPS): setup.py $(wildcard ops/*.* ops/kernels/* ops/cuda/*) $(STAMPS)/requirements
	@echo "== $@: compiled ops"
	@touch $(STAMPS)/ops
	@$(BIN)/python setup.py -q build_ext --inplace
	@touch -r $(STAMPS)/ops $@

$(STAMPS)/package: setup.py pyproject.toml | $(OPS)
	@echo "== the programs sbnet and sbnet_node"
	@$(PIP) -q --no-build-isolation --no-deps -e .
	@touch $@

# `make` alone lists the targets.
.DEFAULT_GOAL := help
.NOTPARALLEL:

cmake := .venv/bin/cmake
python := .venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Tests share the cores: threads that wait shall not spin.
ctest := OMP_WAIT_POLICY=passive .venv/bin/ctest --output-on-failure -j $$(nproc)
configure = $(cmake) -G Ninja -S . -B $(1) -DCMAKE_MAKE_PROGRAM=$(CURDIR)/.venv/bin/ninja \
  --log-level=WARNING
# One compiler a core, and no more than there is memory for: a file over LibTorch takes about 2 GB.
jobs ?= $(shell awk -v cores=$$(nproc) '/MemAvailable/ { jobs = int($$2 / 2097152) } \
  END { print jobs < 1 ? 1 : jobs < cores ? jobs : cores }' /proc/meminfo)
sources = $(shell find $(wildcard include src python tests bench examples) -name '*.hpp' -o -name '*.cpp')

.PHONY: help setup build program demo test wheel test-wheel test-sanitize test-kernels bench docs format check-format

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: program ## train a small language model on the compiler's headers and show what it learned
	@scripts/demo.sh

test: wheel ## build and run every test, those of the Python package from its wheel
	$(ctest) --test-dir build

# Its libraries are those of the build folder.
wheel: build ## the Python package as a wheel in build/wheel, for torch 2.11 and later, and installed in build/site
	rm -rf build/wheel build/site
	PATH=$(CURDIR)/.venv/bin:$$PATH PYTHONPATH=$$(readlink -f .venv/torch)/.. $(python) -m pip wheel -q --no-deps --no-build-isolation -w build/wheel . \
	  --config-settings=build-dir=build --config-settings=cmake.define.PARARNN_PROGRAM=ON \
	  --config-settings=cmake.args="-GNinja;-DCMAKE_MAKE_PROGRAM=$(CURDIR)/.venv/bin/ninja"
	$(python) -m pip install -q --no-index --no-deps --target build/site build/wheel/*.whl

test-wheel: wheel ## the Python package's tests in fresh virtual environments, with torch 2.11 and with the newest
	scripts/test_wheel.sh

test-sanitize: setup ## the engine's and the data's tests under the address and undefined-behaviour sanitizers
	$(call configure,build-sanitize) -DPARARNN_SANITIZE=ON
	$(cmake) --build build-sanitize -j $(jobs)
	$(ctest) --test-dir build-sanitize

test-kernels: setup ## compile every GPU kernel for every cell, storage and architecture (minutes)
	$(call configure,build)
	$(cmake) --build build -j $(jobs) --target cells_tests jit_tests
	build/tests/jit_tests --gtest_filter='Every/*'
	build/tests/cells_tests --gtest_filter='Every/*'

bench: program ## time the engine against the step-by-step loops
	build/pararnn bench --device cpu

docs: ## write docs/api.md, the reference of the Python package, and that of the C++ headers in build/docs
	@scripts/setup.sh doxygen
	$(python) scripts/api_reference.py
	mkdir -p build/docs
	doxygen docs/Doxyfile

build: setup ## build build/pararnn, build/libpararnn.so and the tests
	$(call configure,build)
	$(cmake) --build build -j $(jobs)

# The program without the tests, which are half of the build.
program: setup
	$(call configure,build)
	$(cmake) --build build -j $(jobs) --target pararnn

setup: ## install what is missing: Debian packages, and .venv with LibTorch, cmake and ninja
	@scripts/setup.sh

format: setup ## format the sources in place
	clang-format-14 -i $(sources)

check-format: setup ## check the format of the sources
	clang-format-14 --dry-run -Werror $(sources)

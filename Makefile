# make demo: a mesh on the sample video.  make test: the test suite.  Both set up everything on first use.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
VIDEO ?= data/open/downloads/demo.mp4

EXPORTED := output/exported

.PHONY: demo benchmark test fast shapes coverage test-viewer browser test-blender test-gltf lint fuzz soak mutants \
        mutants-fast assets clean

demo: $(VENV)/.installed assets
	$(PY) demo.py --vid_file '$(subst ','\'',$(VIDEO))'

# The open benchmark at a small size: procedural motions, simulated landmarks, the shipped weights.
benchmark: $(VENV)/.installed
	$(PY) scripts/make_open_db.py --frames 1 --out output/benchmark/data
	$(PY) scripts/compare_open.py --dataset open --preprocessed output/benchmark/data --threads 1

test: $(VENV)/.installed-dev assets
	$(PY) -m pytest -n 2 --dist loadfile

# a minute of tests: one file per line in tests/fast.txt
fast: $(VENV)/.installed-dev
	$(PY) -m pytest @tests/fast.txt

# the same with the shapes in the signatures of lib checked at every call
shapes: $(VENV)/.installed-dev
	$(PY) -m pytest -p tests.shapes @tests/fast.txt

# how much of the training and evaluation code the tests reach
coverage: $(VENV)/.installed-dev assets
	$(PY) -m pytest -n 2 --dist loadfile --cov --cov-report=term-missing:skip-covered

# The tests of viewer.html alone, after installing a headless Chromium where there is none; without one,
# `make test` skips those that need it.
test-viewer: browser
	$(PY) -m pytest tests/test_viewer.py

browser: $(VENV)/.installed-dev
	$(PY) -m tests.browser

# What Blender, or three.js and Khronos' validator, make of exported files. SCENES: tcmr_output.npz of your own.
# bpy, which is Blender, has wheels for Python 3.11 (up to Blender 5.0) and 3.13 (from 5.1 on).
BLENDER_PYTHON ?= $(PYTHON)

test-blender: $(VENV)/.installed-dev .venv-blender/.installed
	rm -rf $(EXPORTED)
	$(PY) -m tests.export_tools $(EXPORTED) $(SCENES)
	.venv-blender/bin/python tests/blender_check.py $(EXPORTED)

test-gltf: $(VENV)/.installed-dev
	rm -rf $(EXPORTED)
	$(PY) -m tests.export_tools $(EXPORTED) $(SCENES)
	npm install --prefix tests/gltf --no-package-lock --silent
	node tests/gltf/check.mjs $(EXPORTED)

lint: $(VENV)/.installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

# mutated files against every reader
fuzz: $(VENV)/.installed-dev
	$(PY) -m tests.fuzz --minutes 10

# the same work for 15 minutes; one arena, since glibc's per-thread ones drift
soak: $(VENV)/.installed-dev
	MALLOC_ARENA_MAX=1 $(PY) -m tests.soak --minutes 15

# small faults in the central modules: which does no test notice?
mutants: $(VENV)/.installed-dev assets
	$(PY) -m tests.mutants

# and does `make fast` notice them in metrics, windows, losses, camera, exporters and checkpoints?
mutants-fast: $(VENV)/.installed-dev assets
	$(PY) -m tests.mutants --fast --count 10

assets: $(VENV)/.installed
	$(PY) -m lib.open_data.assets

$(VENV)/.installed: requirements.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --disable-pip-version-check --quiet -r requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements-dev.txt pyproject.toml $(VENV)/.installed
	$(PY) -m pip install --disable-pip-version-check --quiet -r requirements-dev.txt
	touch $@

.venv-blender/.installed: requirements-blender.txt
	test -x .venv-blender/bin/python || $(BLENDER_PYTHON) -m venv .venv-blender
	.venv-blender/bin/python -m pip install --disable-pip-version-check --quiet -r requirements-blender.txt
	touch $@

clean:
	rm -rf $(VENV) .venv-blender

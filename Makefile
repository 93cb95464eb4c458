# All targets use .venv, created by uv if installed, else by venv and pip.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/anomalib-rd
# Arguments of a command: make train ARGS="data=mvtec data.category=bottle"
ARGS ?=

.PHONY: setup demo test test-slow lint coverage mutants train sweep report bench

setup: $(BIN)/.installed

$(BIN)/.installed: pyproject.toml constraints.txt
	@if command -v uv >/dev/null; then \
	  uv venv --quiet --allow-existing --python "$(PYTHON)" .venv && \
	  uv pip install --compile-bytecode --python $(BIN)/python -c constraints.txt -e ".[dev]"; \
	else \
	  $(PYTHON) -m venv .venv && \
	  $(BIN)/python -m pip install --upgrade pip && \
	  $(BIN)/python -m pip install -c constraints.txt -e ".[dev]"; \
	fi
	@touch $@

# Train on every category of the embedded data set and print the table.
demo: setup
	$(RUN) train -m data.category=all sweep=demo $(ARGS)

# One process per core, at most 4; the tests of a file share a process and its fixtures.
test test-slow: SLOW = not slow
test-slow: SLOW = slow
test test-slow: setup
	$(BIN)/python -m pytest -m "$(SLOW)" --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)

# The tests of each of these packages must cover 90 % of its lines.
COVERED = metrics results data scoring
coverage: setup
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --cov --cov-report= \
	  $(addprefix tests/,$(COVERED))
	@for part in $(COVERED); do \
	  echo "anomalib_rd/$$part: $$($(BIN)/coverage report --include="anomalib_rd/$$part/*" --format=total) %"; \
	  $(BIN)/coverage report --include="anomalib_rd/$$part/*" --fail-under=90 >/dev/null || exit 1; \
	done

# Test a sample of mutants of the metrics' code.
mutants: setup
	$(BIN)/python experiments/trust/mutants.py --out mutants $(ARGS)

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

train: setup
	$(RUN) train $(ARGS)

sweep: setup
	$(RUN) train -m $(ARGS)

# Compare runs: make report ARGS=multirun/NAME
report: setup
	$(RUN) report $(or $(ARGS),multirun)

# Measure speed: make bench ARGS="train model=rd4ad --epochs 3"
bench: setup
	$(BIN)/python -m experiments.speed.bench $(or $(ARGS),metrics)

# Run or resume a study, conf/study/NAME.yaml, and write its record to experiments/NAME. With other
# overrides choose another sweep and folder:
# make study-mask ARGS="trainer.max_epochs=20 data.image_size=[128,128]" SWEEP=screen OUT=multirun/screen
SWEEP = study-$*
OUT = experiments/$*

study-%: setup
	$(RUN) train -m study=$* sweep=$(SWEEP) $(ARGS)
	$(RUN) study record multirun/$(SWEEP) --out $(OUT)

# Write the record of all complete runs again.
record-%: setup
	$(RUN) study record multirun/$(SWEEP) --out $(OUT) $(ARGS)

# Compose and list every job; needs no data and no weights.
plan-%: setup
	$(RUN) study plan $* sweep=$(SWEEP) $(ARGS)

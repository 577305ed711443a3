# Each target works alone on a fresh machine: it makes a virtual environment first, and again whenever
# pyproject.toml or constraints.txt changed.

VENV ?= .venv
DATA ?= ../shared/data
TORCH ?=

# Order: dpo_vs_trl.py makes the models that packing.py takes its tokenizer from.
BENCH_WORK = build/bench
BENCHMARKS = \
	"dpo_vs_trl.py --data $(DATA) --work $(BENCH_WORK)" \
	"answers.py" \
	"rankings.py" \
	"ranking.py --repeats 3" \
	"objectives.py --timing --pairs 32 --model $(BENCH_WORK)/8m --data $(DATA)/hh_harmless_test.jsonl.gz" \
	"evaluation.py" \
	"reference_scores.py --model $(BENCH_WORK)/8m --data $(DATA)/hh_harmless_test.jsonl.gz --pairs 256" \
	"kl_budget.py" \
	"divergence.py" \
	"ways_to_train.py --data $(DATA) --work $(BENCH_WORK)" \
	"check.py --model $(BENCH_WORK)/8m --data $(DATA)/hh_harmless_test.jsonl.gz --work $(BENCH_WORK)" \
	"compare.py --model $(BENCH_WORK)/8m --data $(DATA)/hh_harmless_test.jsonl.gz" \
	"packing.py --model $(BENCH_WORK)/8m --data $(DATA)/hh_harmless_test.jsonl.gz"

PIP_INSTALL = $(VENV)/bin/python -m pip install -c constraints.txt
PYTEST = $(VENV)/bin/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo test slow fuzz lint check bench bench-test docs clean

help:
	@echo 'make demo        train and align a small model where the best possible result is known exactly'
	@echo 'make test        every test but the slow ones'
	@echo 'make slow        the tests that take minutes'
	@echo 'make check       the gate: format, lint, types, import rules, tests'
	@echo 'make lint        the gate without the tests'
	@echo 'make fuzz        100,000 damaged files: each is read or refused, in bounded memory'
	@echo 'make bench       the benchmarks, peers beside kilter; DATA=DIR says where hh_harmless_test.jsonl.gz lies'
	@echo 'make bench-test  the tests that hold kilter against TRL'
	@echo 'make docs        the documentation, as pages to open in a browser'
	@echo 'make clean       delete the virtual environment and what was built'
	@echo
	@echo 'Variables:'
	@echo '  PYTHON=/path/to/python3   which Python (3.11 or newer); default: the first one found'
	@echo "  TORCH='torch --index-url https://download.pytorch.org/whl/cpu'"
	@echo '                            which build of PyTorch; default: the one of the package index'
	@echo '  PIP_INDEX_URL=...         as every other PIP_ variable: handed on to pip'

demo: $(VENV)/installed
	$(VENV)/bin/kilter demo

# Two at a time, each on one thread. Tests of a file stay together, for they share what is costly to make; files come in
# their order, for the test that takes longest is in an early one.
test: $(VENV)/installed-dev
	$(PYTEST) -m 'not slow' -n 2 --dist loadfile --no-loadscope-reorder

slow: $(VENV)/installed-dev
	$(PYTEST) -m slow

lint: $(VENV)/installed-dev
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy

# The import rules are among the tests (tests/test_import_rules.py).
check: lint test

fuzz: $(VENV)/installed-dev
	$(VENV)/bin/python tests/data/fuzz_reading.py

bench: $(VENV)/installed-bench
	@test -f '$(DATA)/hh_harmless_test.jsonl.gz' || { \
		echo "make: no hh_harmless_test.jsonl.gz in $(DATA); fetch Anthropic's HH data and say where: make bench DATA=DIR" >&2; \
		exit 1; }
	@for benchmark in $(BENCHMARKS); do \
		echo; echo "benchmarks/$$benchmark"; \
		$(VENV)/bin/python benchmarks/$$benchmark || exit; \
	done

# Without TRL these tests are skipped, and so they are by `make test` on a fresh machine.
bench-test: $(VENV)/installed-bench $(VENV)/installed-dev
	$(PYTEST) tests/objectives/test_against_trl.py

# The source is the whole repository, so that links read alike in the site and among the files; docs/conf.py says what
# of it is a page.
docs: $(VENV)/installed-docs
	$(VENV)/bin/python -m sphinx --fail-on-warning --keep-going --quiet -c docs -d build/docs-cache . build/docs
	@echo 'open: $(CURDIR)/build/docs/index.html'

clean:
	rm -rf '$(VENV)' build .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/installed: PACKAGE = .
$(VENV)/installed-dev: PACKAGE = .[dev]
$(VENV)/installed-bench: PACKAGE = .[bench]
$(VENV)/installed-docs: PACKAGE = .[docs]

# PyTorch comes first, and alone: an index that has its builds need not have everything else.
$(VENV)/installed $(VENV)/installed-dev $(VENV)/installed-bench $(VENV)/installed-docs: pyproject.toml constraints.txt | $(VENV)/bin/pip
	$(if $(TORCH),$(PIP_INSTALL) --no-deps $(TORCH))
	$(PIP_INSTALL) -e '$(PACKAGE)'
	@touch $@

# pip comes last into an environment: where it is missing, an earlier attempt was cut off.
$(VENV)/bin/pip:
	@for python in $(PYTHON) $(if $(PYTHON),,python3 python3.14 python3.13 python3.12 python3.11); do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		"$$python" -c 'import ensurepip, venv' 2>/dev/null || { \
			echo "make: $$python cannot make virtual environments; install python3-venv (Debian: apt install python3-venv)" >&2; \
			exit 1; }; \
		echo "$$python -m venv $(VENV)"; \
		exec "$$python" -m venv --clear '$(VENV)'; \
	done; \
	echo "make: found no Python 3.11 or newer$(if $(PYTHON), at $(PYTHON)); install one (Debian: apt install python3 python3-venv)," >&2; \
	echo "      or say where it is: make PYTHON=/path/to/python3 ..." >&2; \
	exit 1

# make demo    set up, run the embedded default, print the tables, write the report
# make test    set up, run the whole test suite
# make report  results/report.html: tables, figures, tickets by layer, run times
# make plan    what a run would cost before anything is submitted: CONFIG=my.yaml, TARGET=results/tables/... (EACH=1: every job;
#              several files in CONFIG are a plan each, with `make -j2 -O plan` at the same time)
# make config  the configuration that CONFIG=my.yaml gives, each key with the file and line that set it
# make fuzz    2,000 examples of each property of the readers of images, texts, weights and masks (the suite takes 200); EXAMPLES=N
# make chaos   the tiny workflow of all three pipelines under random faults, at most half an hour; must end with a calm run's bytes.
#              SEED=N FAULTS=N; CLUSTER=1: a small one on a SLURM cluster that is brought up for it (Debian, as root)
# make mutants  wrong code, one mistake at a time, in the modules that decide results: does the suite notice? MUTANTS=N a module (0: all);
#              MODULES="ticket.py ..." some alone; WRITE=1 keeps the score in docs/mutants.json and docs/mutants.md
# make bench   measure winnow against the plain libraries, at most 10 minutes; DEVICE=cuda on a GPU (the demo's jobs count if it ran)
# make docs    docs/configuration.md from its classes, and these pages as a site in build/site; a broken link is an error
# make check   what pre-commit and the tests check: formatting, lint, types
VENV ?= .venv
CORES ?= 2
JOBS ?= 2
TARGET ?=
CONFIG ?=
EACH ?=
DEVICE ?= cpu
EXAMPLES ?= 2000
THREADS ?= 1
SEED ?= 0
FAULTS ?= 40
CLUSTER ?=
WRITE ?=
MODULES ?=
MUTANTS ?= 15
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(shell cat requirements/hashes.txt pyproject.toml | cksum | cut -d' ' -f1)
DOCS := $(VENV)/.docs-$(shell cat requirements/docs.txt | cksum | cut -d' ' -f1)
PLANS := $(addprefix plan@,$(or $(CONFIG),default))

.PHONY: demo test fuzz chaos mutants bench config plan $(PLANS) check format docs report determinism lock clean
.DEFAULT_GOAL := demo

# An installed environment is reused; one without its mark (half built, or of older pins) is completed, and made anew if it is broken.
$(READY):
	@sh requirements/setup.sh "$(VENV)" && touch "$@"

demo: $(READY)
	@$(BIN)/python -m winnow demo --cores $(CORES)

report: $(READY)
	@$(BIN)/python -m winnow report

# the embedded default twice, in two folders, and every artifact of the two compared
determinism: $(READY)
	@set -e; for run in one two; do $(BIN)/snakemake --cores $(CORES) --quiet rules host reason --directory determinism/$$run; done
	$(BIN)/python -m winnow.stages.verify determinism/one/results --same-as determinism/two/results

test: $(READY)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(TARGET)

fuzz: $(READY)
	WINNOW_FUZZ=$(EXAMPLES) $(BIN)/python -m pytest -n $(JOBS) --dist loadfile tests/unit/test_image_fuzz.py tests/unit/test_interchange_fuzz.py tests/unit/test_text_tables.py

chaos: $(READY)
	PYTHONPATH=src:tests $(BIN)/python -m chaos.chaos --seed $(SEED) --faults $(FAULTS) $(if $(CLUSTER),--cluster)

mutants: $(READY)
	PYTHONPATH=src:tests $(BIN)/python -m mutants.run --each $(MUTANTS) $(if $(WRITE),--write) $(MODULES)

plan: $(PLANS)

$(PLANS): plan@%: $(READY)
	@$(if $(CONFIG),echo "$*:";) $(BIN)/python -m winnow plan $(if $(CONFIG),$*) $(if $(EACH),--each) --profile slurm $(TARGET)

config: $(READY)
	@$(BIN)/python -m winnow config $(CONFIG)

bench: $(READY)
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m bench --device $(DEVICE) --threads $(THREADS)

check: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/snakefmt --check Snakefile workflow && $(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format . && $(BIN)/snakefmt Snakefile workflow

# what the site needs beside the locked packages, and nothing else does
$(DOCS): $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/docs.txt && touch "$@"

docs: $(DOCS)
	$(BIN)/python -m winnow.config.document
	$(BIN)/sphinx-build -W --keep-going -n -q -c docs . build/site
	@echo build/site/docs/index.html

lock:
	sh requirements/lock.sh

clean:
	rm -rf determinism .snakemake .winnow
	[ ! -d results ] || find results -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -rf {} +

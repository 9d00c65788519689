# make demo    set up, run the embedded default, print the tables, write the report
# make test    set up, run the whole test suite
# make bench   measure winnow against the plain libraries, at most 10 minutes; DEVICE=cuda on a GPU (the demo's jobs count if it ran)
# make check   what pre-commit and the tests check: formatting, lint, types
VENV ?= .venv
CORES ?= 2
JOBS ?= 2
TARGET ?=
DEVICE ?= cpu
THREADS ?= 1
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(shell cat requirements/lock.txt pyproject.toml | cksum | cut -d' ' -f1)

.PHONY: demo test bench check format docs report lock clean
.DEFAULT_GOAL := demo

# An installed environment is reused; one without its mark (half built, or of older pins) is completed, and made anew if it is broken.
$(READY):
	@sh requirements/setup.sh "$(VENV)" && touch "$@"

demo: $(READY)
	$(BIN)/snakemake --cores $(CORES) --quiet rules host reason
	@$(MAKE) --no-print-directory report
	@$(BIN)/python -m winnow.tables.show results/tables
	@echo "report: results/report.html"

report: $(READY)
	@test -e results/report.html -a -z "$$(find results/tables results/figures -newer results/report.html -type f 2>/dev/null | head -n 1)" \
	|| $(BIN)/snakemake --cores 1 --quiet all --report results/report.html

test: $(READY)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(TARGET)

bench: $(READY)
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m bench --device $(DEVICE) --threads $(THREADS)

check: $(READY)
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/snakefmt --check Snakefile workflow && $(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format . && $(BIN)/snakefmt Snakefile workflow

docs: $(READY)
	$(BIN)/python -m winnow.config.document

lock:
	sh requirements/lock.sh

clean:
	rm -rf results .snakemake .winnow

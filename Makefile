# make demo: corpus -> tokenizer -> shards -> GPT forward and backward -> comparison, from a fresh machine.
# make test: all tests.   make check: what changed files need, in a minute.   make soak: hundreds of faults, and a table.
# make lint, make format: as their names say.   make lock: requirements.in -> requirements.txt.

PYTHON ?= python3
BIN := .venv/bin
DEMO := demo
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.10 --custom-compile-command 'make lock' requirements.in
export PYTHONUNBUFFERED := 1
# Threads that wait in a busy loop slow each other down by a factor of 2 and more where another program wants a core.
export OMP_WAIT_POLICY := passive

.PHONY: setup demo test check soak lint format lock

setup: .venv/.ready

# Made anew when requirements.txt changes; otherwise reused at once.
.venv/.ready: requirements.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 12) else "Python 3.10 to 3.12 is needed, this is %d.%d; give another with make PYTHON=python3.11" % v)'
	@echo "Setting up .venv (about 4 minutes, 6 GB)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar on -r requirements.txt
	@touch $@

demo: setup
	@$(BIN)/python make_corpus.py out=$(DEMO)/corpus.txt
	@$(BIN)/python train_tokenizer.py corpus=$(DEMO)/corpus.txt out=$(DEMO)/tokenizer vocab_size=4096
	@$(BIN)/python convert_to_mds.py corpus=$(DEMO)/corpus.txt tokenizer=$(DEMO)/tokenizer out=$(DEMO)/bible val_share=0.05
	@$(BIN)/python train_composer.py direction=forward
	@$(BIN)/python train_composer.py direction=backward
	@$(BIN)/python compare_directions.py 'runs=[runs/gpt_demo-bible-forward-seed0,runs/gpt_demo-bible-backward-seed0]' out=$(DEMO)/comparison

# As many tests side by side as there are processors, up to four; see tests/helpers/machines.py.
test: setup
	@$(BIN)/python -m pytest -n auto

check: setup
	@$(BIN)/python tests/check.py

# Each of eight faults so many times, at random moments; about 10 s a try on two cores.
TRIES ?= 25
SEED ?= 0
soak: setup
	@PYTHONPATH=.:tests $(BIN)/python tests/faults/soak.py $(TRIES) $(SEED)

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@$(BIN)/shellcheck -x jobs/*.sh jobs/*.slurm
	@cp requirements.txt .venv/requirements.txt && $(LOCK) -o .venv/requirements.txt
	@diff requirements.txt .venv/requirements.txt || { echo "requirements.txt is stale: run make lock"; exit 1; }

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: setup
	@$(LOCK) -o requirements.txt

# make demo: corpus -> tokenizer -> shards -> GPT forward and backward -> comparison, from a fresh machine.
# make test: all tests.   make check: what changed files need, in a minute.   make soak: hundreds of faults, and a table.
# make bench: training beside its peers and its targets, about ten minutes; RECORD=1 records the ratios anew, JSON=FILE writes all.
# make lint, make format: as their names say.   make lock: requirements*.in -> requirements*.txt.
# TORCH=latest does any of it with the versions of requirements-latest.txt, in .venv-latest.

PYTHON ?= python3
# pinned: the newest torch that mosaicml admits. latest: today's, for GPUs newer than Hopper.
TORCH ?= pinned
$(if $(filter-out pinned latest,$(TORCH)),$(error TORCH=$(TORCH) is not known; give pinned or latest))
VENV := $(if $(filter latest,$(TORCH)),.venv-latest,.venv)
LOCKED := $(if $(filter latest,$(TORCH)),requirements-latest.txt,requirements.txt)
OLDEST := $(if $(filter latest,$(TORCH)),11,10)
BIN := $(VENV)/bin
DEMO := demo
COMPILE := $(BIN)/uv pip compile --quiet --universal --custom-compile-command 'make lock' requirements.in
LOCK := $(COMPILE) --python-version 3.10
LOCK_LATEST := $(COMPILE) --python-version 3.11 --override requirements-latest.in
export PYTHONUNBUFFERED := 1
# Threads that wait in a busy loop slow each other down by a factor of 2 and more where another program wants a core.
export OMP_WAIT_POLICY := passive

.PHONY: setup demo test test-latest check soak bench lint format lock

setup: $(VENV)/.ready

# Made anew when the locked requirements change; otherwise reused at once. Today's torch is installed by uv and with
# --no-deps: mosaicml caps torch, and a user's settings of pip may cap it too. accelerate, which lm_eval needs, has a folder of
# its own: transformers imports it wherever it finds it, which would make every start of a training a second longer.
$(VENV)/.ready: $(LOCKED)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, $(OLDEST)) <= v <= (3, 12) else "Python 3.$(OLDEST) to 3.12 is needed, this is %d.%d; give another with make PYTHON=python3.11" % v)'
	@echo "Setting up $(VENV) (about 4 minutes, 6 GB)"
	@$(PYTHON) -m venv $(VENV)
ifeq ($(TORCH),latest)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' $(LOCKED))"
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps -r $(LOCKED)
else
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar on -r $(LOCKED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(VENV)/lm_eval accelerate==1.15.0
endif
	@touch $@

demo: setup
	@$(BIN)/python make_corpus.py out=$(DEMO)/corpus.txt
	@$(BIN)/python train_tokenizer.py corpus=$(DEMO)/corpus.txt out=$(DEMO)/tokenizer vocab_size=4096
	@$(BIN)/python convert_to_mds.py corpus=$(DEMO)/corpus.txt tokenizer=$(DEMO)/tokenizer out=$(DEMO)/bible val_share=0.05
	@$(BIN)/python train_composer.py experiment=demo direction=forward
	@$(BIN)/python train_composer.py experiment=demo direction=backward
	@$(BIN)/python compare_directions.py runs/gpt_demo-bible-forward-seed0 runs/gpt_demo-bible-backward-seed0 out=$(DEMO)/comparison

# As many tests side by side as there are processors, up to four; see tests/helpers/machines.py.
test: setup
	@$(BIN)/python -m pytest -n auto

# On today's torch: the contract of a comparison, a kill and a resume, the logits of Hugging Face's models, tokenizers, and
# beside PyTorch's Muon, which the pinned torch does not have, ours.
test-latest:
	@$(MAKE) --no-print-directory setup TORCH=latest
	@.venv-latest/bin/python -m pytest -n auto \
		tests/test_direction.py tests/test_loss_utils.py tests/test_hf_weights.py tests/test_fused_cross_entropy.py \
		tests/test_tokenizer.py tests/test_bpe_training.py tests/test_fast_encoding.py \
		tests/test_muon.py::test_a_whole_matrix_is_updated_bit_for_bit_as_by_pytorchs_muon \
		tests/test_compile.py::test_a_compiled_model_has_the_losses_and_gradients_of_eager_mode \
		tests/test_gpt.py::test_gpt2_block_gives_the_logits_of_hugging_faces_gpt2 \
		tests/test_gpt.py::test_llama_block_gives_the_logits_of_hugging_faces_llama \
		tests/test_load_text_streaming.py::test_a_pass_predicts_each_training_token_exactly_once \
		tests/test_load_text_streaming.py::test_forward_and_backward_see_the_same_windows_in_the_same_order \
		tests/test_load_text_streaming.py::test_no_document_is_in_both_splits \
		tests/test_load_text_streaming.py::test_a_loaded_state_goes_on_with_the_next_batch \
		tests/test_train_composer.py::test_a_pair_starts_from_the_same_weights_and_sees_the_same_windows \
		tests/test_train_composer.py::test_the_evaluation_is_the_sum_over_the_whole_set_whatever_the_batches \
		tests/test_train_composer.py::test_a_resumed_run_has_bit_for_bit_the_losses_of_an_uninterrupted_one \
		tests/test_train_composer.py::test_a_run_that_goes_on_with_other_versions_says_so \
		"tests/faults/test_kills.py::test_a_kill_at_a_chosen_moment_changes_no_loss[in the first steps]"

check: setup
	@$(BIN)/python tests/check.py

# Each of eight faults so many times, at random moments; about 10 s a try on two cores.
TRIES ?= 25
SEED ?= 0
soak: setup
	@PYTHONPATH=.:tests $(BIN)/python tests/faults/soak.py $(TRIES) $(SEED)

bench: setup
	@$(BIN)/python -m benchmarks.targets $(if $(RECORD),--record) $(if $(JSON),--json '$(JSON)') $(PARTS)

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@$(BIN)/shellcheck -x jobs/*.sh jobs/*.slurm benchmarks/*.sh
	@cp requirements.txt requirements-latest.txt $(VENV)
	@$(LOCK) -o $(VENV)/requirements.txt && $(LOCK_LATEST) -o $(VENV)/requirements-latest.txt
	@for name in requirements.txt requirements-latest.txt; do \
		diff $$name $(VENV)/$$name || { echo "$$name is stale: run make lock"; exit 1; }; done

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: setup
	@$(LOCK) -o requirements.txt
	@$(LOCK_LATEST) -o requirements-latest.txt

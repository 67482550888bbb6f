# Study tokenizer_controls, scale=cpu: what run_study.py has run.
# Commit 9c228fe3dd01a1ef607e8b8eaa2bca3cab963e98. Each command does nothing where its result is there.
# Runs were trained by commit 2fd30ef2a6e93abd8f7498665ca3effb956358e9 (24 runs).
set -e
CDPATH= cd -- "$(dirname -- "${BASH_SOURCE:-$0}")"/../../..
export OMP_NUM_THREADS=1
export OMP_WAIT_POLICY=passive
python make_corpus.py kind=excerpts corpus=texts/eltec-fra.txt.xz document_bytes=100000 out=data/corpora/french-edb3b0.txt
python train_tokenizer.py corpus=data/corpora/french-edb3b0.txt out=data/tokenizers/french-own-917b31 vocab_size=4096
python convert_to_mds.py corpus=data/corpora/french-edb3b0.txt tokenizer=data/tokenizers/french-own-917b31 out=data/french-own-31f095 val_share=0.3 block_length=256
python make_corpus.py kind=excerpts corpus=texts/eltec-eng.txt.xz document_bytes=100000 out=data/corpora/english-2a413b.txt
python -m hindsight.studies.links data/corpora/english+french-4389eb data/corpora/english-2a413b.txt data/corpora/french-edb3b0.txt
python train_tokenizer.py corpus=data/corpora/english+french-4389eb out=data/tokenizers/shared-e97fb0 vocab_size=4096
python convert_to_mds.py corpus=data/corpora/french-edb3b0.txt tokenizer=data/tokenizers/shared-e97fb0 out=data/french-shared-e105eb val_share=0.3 block_length=256
python train_tokenizer.py corpus=data/corpora/french-edb3b0.txt out=data/tokenizers/french-reversed-a2cc3f text_order=reversed vocab_size=4096
python convert_to_mds.py corpus=data/corpora/french-edb3b0.txt tokenizer=data/tokenizers/french-reversed-a2cc3f out=data/french-reversed-0e8b79 text_order=reversed val_share=0.3 block_length=256
python train_tokenizer.py out=data/tokenizers/bytes-1c6785 vocab_size=bytes
python convert_to_mds.py corpus=data/corpora/french-edb3b0.txt tokenizer=data/tokenizers/bytes-1c6785 out=data/french-bytes-c65a28 val_share=0.3 block_length=896
python train_composer.py order=forward seed=0 data.path=data/french-own-31f095 run_name=own-forward-seed0 model=gpt_demo precision=bf16 batch_size=16 max_duration=250ba eval_interval=125ba checkpoint.interval=250ba samples.interval=null wandb.mode=disabled runs_dir=runs/tokenizer_controls-cpu
python evaluate_tokens.py run=runs/tokenizer_controls-cpu/own-forward-seed0 context=windows
python train_composer.py order=forward seed=1 data.path=data/french-own-31f095 run_name=own-forward-seed1 model=gpt_demo precision=bf16 batch_size=16 max_duration=250ba eval_interval=125ba checkpoint.interval=250ba samples.interval=null wandb.mode=disabled runs_dir=runs/tokenizer_controls-cpu
python evaluate_tokens.py run=runs/tokenizer_controls-cpu/own-forward-seed1 context=windows
python train_composer.py order=forward seed=2 data.path=data/french-own-31f095 run_name=own-forward-seed2 model=gpt_demo precision=bf16 batch_size=16 max_duration=250ba eval_interval=125ba checkpoint.interval=250ba samples.interval=null wandb.mode=disabled runs_dir=runs/tokenizer_controls-cpu
python evaluate_tokens.py run=runs/tokenizer_controls-cpu/own-forward-seed2 context=windows
python train_composer.py order=backward seed=0 data.path=data/french-own-31f095 run_name=own-backward-seed0 model=gpt_demo precision=bf16 batch_size=16 max_duration=250ba eval_interval=125ba checkpoint.interval=250ba samples.interval=null wandb.mode=disabled runs_dir=runs/tokenizer_controls-cpu
python evaluate_tokens.py run=runs/tokenizer_controls-cpu/own-backward-seed0 context=windows
python train_composer.py order=backward seed=1 data.path=data/french-own-31f095 run_name=own-backward-seed1 model=gpt_demo precision=bf16 batch_size=16 max_duration=250ba eval_interval=125ba checkpoint.interval=250ba samples.interval=null wandb.mode=disabled runs_dir=runs/tokenizer_controls-cpu
python evaluate_tokens.py run=runs/tokenizer_controls-cpu/own-backward-seed1 context=windows
python train_composer.py order=backward seed=2 data.path=data/french-own-31f095 run_name=own-backward-seed2 model=gpt_demo precision=bf16 batch_size=16 max_duration=250ba eval_interval=125ba checkpoint.interval=250ba samples.interval=null wandb.mode=disabled runs_dir=runs/tokenizer_controls-cpu
python evaluate_tokens.py run=runs/tokenizer_controls-cpu/own-backward-seed2 context=windows
python train_composer.py order=forward seed=0 data.path=data/french-shared-e105eb run_name=shared-forward-seed0 model=gpt_demo precision=bf16 batch_size=16 max_duration=250ba eval_interval=125ba checkpoint.interval=250ba samples.interval=null wandb.mode=disabled runs_dir=runs/tokenizer_controls-cpu
python evaluate_tokens.py run=runs/tokenizer_controls-cpu/shared-forward-seed0 context=windows
python train_composer.py order=forward seed=1 data.path=data/french-shared-e105eb run_name=shared-forward-seed1 model=gpt_demo precision=bf16 batch_size=16 max_duration=250ba eval_interval=125ba checkpoint.interval=250ba samples.interval=null wandb.mode=disabled runs_dir=runs/tokenizer_controls-cpu
python evaluate_tokens.py run=runs/tokenizer_controls-cpu/shared-forward-seed1 context=windows
python train_composer.py order=forward seed=2 data.path=data/french-shared-e105eb run_name=shared-forward-seed2 model=gpt_demo precision=bf16 batch_size=16 max_duration=250ba eval_interval=125ba checkpoint.interval=250ba samples.interval=null wandb.mode=disabled runs_dir=runs/tokenizer_controls-cpu
python evaluate_tokens.py run=runs/tokenizer_controls-cpu/shared-forward-seed2 context=windows
python train_composer.py order=backward seed=0 data.path=data/french-shared-e105eb run_name=shared-backward-seed0 model=gpt_demo precision=bf16 batch_size=16 max_duration=250ba eval_interval=125ba checkpoint.interval=250ba samples.interval=null wandb.mode=disabled runs_dir=runs/tokenizer_controls-cpu
python evaluate_tokens.py run=runs/tokenizer_controls-cpu/shared-backward-seed0 context=windows
python train_composer.py order=backward seed=1 data.path=data/french-shared-e105eb run_name=shared-backward-seed1 model=gpt_demo precision=bf16 batch_size=16 max_duration=250ba eval_interval=125ba checkpoint.interval=250ba samples.interval=null wandb.mode=disabled runs_dir=runs/tokenizer_controls-cpu
python evaluate_tokens.py run=runs/tokenizer_controls-cpu/shared-backward-seed1 context=windows
python train_composer.py order=backward seed=2 data.path=data/french-shared-e105eb run_name=shared-backward-seed2 model=gpt_demo precision=bf16 batch_size=16 max_duration=250ba eval_interval=125ba checkpoint.interval=250ba samples.interval=null wandb.mode=disabled runs_dir=runs/tokenizer_controls-cpu
python evaluate_tokens.py run=runs/tokenizer_controls-cpu/shared-backward-seed2 context=windows
python train_composer.py order=forward seed=0 data.path=data/french-reversed-0e8b79 run_name=reversed-forward-seed0 model=gpt_demo precision=bf16 batch_size=16 max_duration=250ba eval_interval=125ba checkpoint.interval=250ba samples.interval=null wandb.mode=disabled runs_dir=runs/tokenizer_controls-cpu
python evaluate_tokens.py run=runs/tokenizer_controls-cpu/reversed-forward-seed0 context=windows
python train_composer.py order=forward seed=1 data.path=data/french-reversed-0e8b79 run_name=reversed-forward-seed1 model=gpt_demo precision=bf16 batch_size=16 max_duration=250ba eval_interval=125ba checkpoint.interval=250ba samples.interval=null wandb.mode=disabled runs_dir=runs/tokenizer_controls-cpu
python evaluate_tokens.py run=runs/tokenizer_controls-cpu/reversed-forward-seed1 context=windows
python train_composer.py order=forward seed=2 data.path=data/french-reversed-0e8b79 run_name=reversed-forward-seed2 model=gpt_demo precision=bf16 batch_size=16 max_duration=250ba eval_interval=125ba checkpoint.interval=250ba samples.interval=null wandb.mode=disabled runs_dir=runs/tokenizer_controls-cpu
python evaluate_tokens.py run=runs/tokenizer_controls-cpu/reversed-forward-seed2 context=windows
python train_composer.py order=backward seed=0 data.path=data/french-reversed-0e8b79 run_name=reversed-backward-seed0 model=gpt_demo precision=bf16 batch_size=16 max_duration=250ba eval_interval=125ba checkpoint.interval=250ba samples.interval=null wandb.mode=disabled runs_dir=runs/tokenizer_controls-cpu
python evaluate_tokens.py run=runs/tokenizer_controls-cpu/reversed-backward-seed0 context=windows
python train_composer.py order=backward seed=1 data.path=data/french-reversed-0e8b79 run_name=reversed-backward-seed1 model=gpt_demo precision=bf16 batch_size=16 max_duration=250ba eval_interval=125ba checkpoint.interval=250ba samples.interval=null wandb.mode=disabled runs_dir=runs/tokenizer_controls-cpu
python evaluate_tokens.py run=runs/tokenizer_controls-cpu/reversed-backward-seed1 context=windows
python train_composer.py order=backward seed=2 data.path=data/french-reversed-0e8b79 run_name=reversed-backward-seed2 model=gpt_demo precision=bf16 batch_size=16 max_duration=250ba eval_interval=125ba checkpoint.interval=250ba samples.interval=null wandb.mode=disabled runs_dir=runs/tokenizer_controls-cpu
python evaluate_tokens.py run=runs/tokenizer_controls-cpu/reversed-backward-seed2 context=windows
python train_composer.py order=forward seed=0 data.path=data/french-bytes-c65a28 run_name=bytes-forward-seed0 model=gpt_demo precision=bf16 batch_size=16 max_duration=250ba eval_interval=250ba checkpoint.interval=250ba samples.interval=null wandb.mode=disabled model.context_length=896 data.context_length=896 runs_dir=runs/tokenizer_controls-cpu
python evaluate_tokens.py run=runs/tokenizer_controls-cpu/bytes-forward-seed0 context=windows
python train_composer.py order=forward seed=1 data.path=data/french-bytes-c65a28 run_name=bytes-forward-seed1 model=gpt_demo precision=bf16 batch_size=16 max_duration=250ba eval_interval=250ba checkpoint.interval=250ba samples.interval=null wandb.mode=disabled model.context_length=896 data.context_length=896 runs_dir=runs/tokenizer_controls-cpu
python evaluate_tokens.py run=runs/tokenizer_controls-cpu/bytes-forward-seed1 context=windows
python train_composer.py order=forward seed=2 data.path=data/french-bytes-c65a28 run_name=bytes-forward-seed2 model=gpt_demo precision=bf16 batch_size=16 max_duration=250ba eval_interval=250ba checkpoint.interval=250ba samples.interval=null wandb.mode=disabled model.context_length=896 data.context_length=896 runs_dir=runs/tokenizer_controls-cpu
python evaluate_tokens.py run=runs/tokenizer_controls-cpu/bytes-forward-seed2 context=windows
python train_composer.py order=backward seed=0 data.path=data/french-bytes-c65a28 run_name=bytes-backward-seed0 model=gpt_demo precision=bf16 batch_size=16 max_duration=250ba eval_interval=250ba checkpoint.interval=250ba samples.interval=null wandb.mode=disabled model.context_length=896 data.context_length=896 runs_dir=runs/tokenizer_controls-cpu
python evaluate_tokens.py run=runs/tokenizer_controls-cpu/bytes-backward-seed0 context=windows
python train_composer.py order=backward seed=1 data.path=data/french-bytes-c65a28 run_name=bytes-backward-seed1 model=gpt_demo precision=bf16 batch_size=16 max_duration=250ba eval_interval=250ba checkpoint.interval=250ba samples.interval=null wandb.mode=disabled model.context_length=896 data.context_length=896 runs_dir=runs/tokenizer_controls-cpu
python evaluate_tokens.py run=runs/tokenizer_controls-cpu/bytes-backward-seed1 context=windows
python train_composer.py order=backward seed=2 data.path=data/french-bytes-c65a28 run_name=bytes-backward-seed2 model=gpt_demo precision=bf16 batch_size=16 max_duration=250ba eval_interval=250ba checkpoint.interval=250ba samples.interval=null wandb.mode=disabled model.context_length=896 data.context_length=896 runs_dir=runs/tokenizer_controls-cpu
python evaluate_tokens.py run=runs/tokenizer_controls-cpu/bytes-backward-seed2 context=windows
python compare_directions.py runs/tokenizer_controls-cpu/own-forward-seed0 runs/tokenizer_controls-cpu/own-forward-seed1 runs/tokenizer_controls-cpu/own-forward-seed2 runs/tokenizer_controls-cpu/own-backward-seed0 runs/tokenizer_controls-cpu/own-backward-seed1 runs/tokenizer_controls-cpu/own-backward-seed2 runs/tokenizer_controls-cpu/shared-forward-seed0 runs/tokenizer_controls-cpu/shared-forward-seed1 runs/tokenizer_controls-cpu/shared-forward-seed2 runs/tokenizer_controls-cpu/shared-backward-seed0 runs/tokenizer_controls-cpu/shared-backward-seed1 runs/tokenizer_controls-cpu/shared-backward-seed2 runs/tokenizer_controls-cpu/reversed-forward-seed0 runs/tokenizer_controls-cpu/reversed-forward-seed1 runs/tokenizer_controls-cpu/reversed-forward-seed2 runs/tokenizer_controls-cpu/reversed-backward-seed0 runs/tokenizer_controls-cpu/reversed-backward-seed1 runs/tokenizer_controls-cpu/reversed-backward-seed2 runs/tokenizer_controls-cpu/bytes-forward-seed0 runs/tokenizer_controls-cpu/bytes-forward-seed1 runs/tokenizer_controls-cpu/bytes-forward-seed2 runs/tokenizer_controls-cpu/bytes-backward-seed0 runs/tokenizer_controls-cpu/bytes-backward-seed1 runs/tokenizer_controls-cpu/bytes-backward-seed2 out=results/tokenizer_controls/cpu/comparison report=false

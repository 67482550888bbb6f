# Study paper_main, scale=cpu: what run_study.py has run.
# Commit 46b7c9c1f99d13c64bbba5ac742edab311ce7b92. Each command does nothing where its result is there.
# Runs were trained by commit a48c60c6e8d5159cca83e54b9ee709abe503de29 (14 runs), 773372c84c0edf8f1245fe5b099e42f1daba4bf8 (6 runs).
set -e
CDPATH= cd -- "$(dirname -- "${BASH_SOURCE:-$0}")"/../../..
export OMP_NUM_THREADS=1
export OMP_WAIT_POLICY=passive
python make_corpus.py kind=excerpts corpus=texts/eltec-eng.txt.xz document_bytes=100000 out=data/corpora/english-2a413b.txt
python train_tokenizer.py corpus=data/corpora/english-2a413b.txt out=data/tokenizers/english-own-6ee4f0 vocab_size=4096
python convert_to_mds.py corpus=data/corpora/english-2a413b.txt tokenizer=data/tokenizers/english-own-6ee4f0 out=data/english-own-5403ec val_share=0.3 block_length=256
python make_corpus.py kind=excerpts corpus=texts/eltec-fra.txt.xz document_bytes=100000 out=data/corpora/french-edb3b0.txt
python train_tokenizer.py corpus=data/corpora/french-edb3b0.txt out=data/tokenizers/french-own-917b31 vocab_size=4096
python convert_to_mds.py corpus=data/corpora/french-edb3b0.txt tokenizer=data/tokenizers/french-own-917b31 out=data/french-own-31f095 val_share=0.3 block_length=256
python train_composer.py order=forward seed=0 data.path=data/english-own-5403ec run_name=english-forward-seed0 model=gpt_demo precision=bf16 batch_size=16 max_duration=2ep eval_interval=500ba checkpoint.interval=500ba wandb.mode=disabled runs_dir=runs/paper_main-cpu
python evaluate_tokens.py run=runs/paper_main-cpu/english-forward-seed0 context=windows
python train_composer.py order=forward seed=1 data.path=data/english-own-5403ec run_name=english-forward-seed1 model=gpt_demo precision=bf16 batch_size=16 max_duration=2ep eval_interval=500ba checkpoint.interval=500ba wandb.mode=disabled runs_dir=runs/paper_main-cpu
python evaluate_tokens.py run=runs/paper_main-cpu/english-forward-seed1 context=windows
python train_composer.py order=forward seed=2 data.path=data/english-own-5403ec run_name=english-forward-seed2 model=gpt_demo precision=bf16 batch_size=16 max_duration=2ep eval_interval=500ba checkpoint.interval=500ba wandb.mode=disabled runs_dir=runs/paper_main-cpu
python evaluate_tokens.py run=runs/paper_main-cpu/english-forward-seed2 context=windows
python train_composer.py order=forward seed=3 data.path=data/english-own-5403ec run_name=english-forward-seed3 model=gpt_demo precision=bf16 batch_size=16 max_duration=2ep eval_interval=500ba checkpoint.interval=500ba wandb.mode=disabled runs_dir=runs/paper_main-cpu
python evaluate_tokens.py run=runs/paper_main-cpu/english-forward-seed3 context=windows
python train_composer.py order=forward seed=4 data.path=data/english-own-5403ec run_name=english-forward-seed4 model=gpt_demo precision=bf16 batch_size=16 max_duration=2ep eval_interval=500ba checkpoint.interval=500ba wandb.mode=disabled runs_dir=runs/paper_main-cpu
python evaluate_tokens.py run=runs/paper_main-cpu/english-forward-seed4 context=windows
python train_composer.py order=backward seed=0 data.path=data/english-own-5403ec run_name=english-backward-seed0 model=gpt_demo precision=bf16 batch_size=16 max_duration=2ep eval_interval=500ba checkpoint.interval=500ba wandb.mode=disabled runs_dir=runs/paper_main-cpu
python evaluate_tokens.py run=runs/paper_main-cpu/english-backward-seed0 context=windows
python train_composer.py order=backward seed=1 data.path=data/english-own-5403ec run_name=english-backward-seed1 model=gpt_demo precision=bf16 batch_size=16 max_duration=2ep eval_interval=500ba checkpoint.interval=500ba wandb.mode=disabled runs_dir=runs/paper_main-cpu
python evaluate_tokens.py run=runs/paper_main-cpu/english-backward-seed1 context=windows
python train_composer.py order=backward seed=2 data.path=data/english-own-5403ec run_name=english-backward-seed2 model=gpt_demo precision=bf16 batch_size=16 max_duration=2ep eval_interval=500ba checkpoint.interval=500ba wandb.mode=disabled runs_dir=runs/paper_main-cpu
python evaluate_tokens.py run=runs/paper_main-cpu/english-backward-seed2 context=windows
python train_composer.py order=backward seed=3 data.path=data/english-own-5403ec run_name=english-backward-seed3 model=gpt_demo precision=bf16 batch_size=16 max_duration=2ep eval_interval=500ba checkpoint.interval=500ba wandb.mode=disabled runs_dir=runs/paper_main-cpu
python evaluate_tokens.py run=runs/paper_main-cpu/english-backward-seed3 context=windows
python train_composer.py order=backward seed=4 data.path=data/english-own-5403ec run_name=english-backward-seed4 model=gpt_demo precision=bf16 batch_size=16 max_duration=2ep eval_interval=500ba checkpoint.interval=500ba wandb.mode=disabled runs_dir=runs/paper_main-cpu
python evaluate_tokens.py run=runs/paper_main-cpu/english-backward-seed4 context=windows
python train_composer.py order=forward seed=0 data.path=data/french-own-31f095 run_name=french-forward-seed0 model=gpt_demo precision=bf16 batch_size=16 max_duration=2ep eval_interval=500ba checkpoint.interval=500ba wandb.mode=disabled runs_dir=runs/paper_main-cpu
python evaluate_tokens.py run=runs/paper_main-cpu/french-forward-seed0 context=windows
python train_composer.py order=forward seed=1 data.path=data/french-own-31f095 run_name=french-forward-seed1 model=gpt_demo precision=bf16 batch_size=16 max_duration=2ep eval_interval=500ba checkpoint.interval=500ba wandb.mode=disabled runs_dir=runs/paper_main-cpu
python evaluate_tokens.py run=runs/paper_main-cpu/french-forward-seed1 context=windows
python train_composer.py order=forward seed=2 data.path=data/french-own-31f095 run_name=french-forward-seed2 model=gpt_demo precision=bf16 batch_size=16 max_duration=2ep eval_interval=500ba checkpoint.interval=500ba wandb.mode=disabled runs_dir=runs/paper_main-cpu
python evaluate_tokens.py run=runs/paper_main-cpu/french-forward-seed2 context=windows
python train_composer.py order=forward seed=3 data.path=data/french-own-31f095 run_name=french-forward-seed3 model=gpt_demo precision=bf16 batch_size=16 max_duration=2ep eval_interval=500ba checkpoint.interval=500ba wandb.mode=disabled runs_dir=runs/paper_main-cpu
python evaluate_tokens.py run=runs/paper_main-cpu/french-forward-seed3 context=windows
python train_composer.py order=forward seed=4 data.path=data/french-own-31f095 run_name=french-forward-seed4 model=gpt_demo precision=bf16 batch_size=16 max_duration=2ep eval_interval=500ba checkpoint.interval=500ba wandb.mode=disabled runs_dir=runs/paper_main-cpu
python evaluate_tokens.py run=runs/paper_main-cpu/french-forward-seed4 context=windows
python train_composer.py order=backward seed=0 data.path=data/french-own-31f095 run_name=french-backward-seed0 model=gpt_demo precision=bf16 batch_size=16 max_duration=2ep eval_interval=500ba checkpoint.interval=500ba wandb.mode=disabled runs_dir=runs/paper_main-cpu
python evaluate_tokens.py run=runs/paper_main-cpu/french-backward-seed0 context=windows
python train_composer.py order=backward seed=1 data.path=data/french-own-31f095 run_name=french-backward-seed1 model=gpt_demo precision=bf16 batch_size=16 max_duration=2ep eval_interval=500ba checkpoint.interval=500ba wandb.mode=disabled runs_dir=runs/paper_main-cpu
python evaluate_tokens.py run=runs/paper_main-cpu/french-backward-seed1 context=windows
python train_composer.py order=backward seed=2 data.path=data/french-own-31f095 run_name=french-backward-seed2 model=gpt_demo precision=bf16 batch_size=16 max_duration=2ep eval_interval=500ba checkpoint.interval=500ba wandb.mode=disabled runs_dir=runs/paper_main-cpu
python evaluate_tokens.py run=runs/paper_main-cpu/french-backward-seed2 context=windows
python train_composer.py order=backward seed=3 data.path=data/french-own-31f095 run_name=french-backward-seed3 model=gpt_demo precision=bf16 batch_size=16 max_duration=2ep eval_interval=500ba checkpoint.interval=500ba wandb.mode=disabled runs_dir=runs/paper_main-cpu
python evaluate_tokens.py run=runs/paper_main-cpu/french-backward-seed3 context=windows
python train_composer.py order=backward seed=4 data.path=data/french-own-31f095 run_name=french-backward-seed4 model=gpt_demo precision=bf16 batch_size=16 max_duration=2ep eval_interval=500ba checkpoint.interval=500ba wandb.mode=disabled runs_dir=runs/paper_main-cpu
python evaluate_tokens.py run=runs/paper_main-cpu/french-backward-seed4 context=windows
python compare_directions.py runs/paper_main-cpu/english-forward-seed0 runs/paper_main-cpu/english-forward-seed1 runs/paper_main-cpu/english-forward-seed2 runs/paper_main-cpu/english-forward-seed3 runs/paper_main-cpu/english-forward-seed4 runs/paper_main-cpu/english-backward-seed0 runs/paper_main-cpu/english-backward-seed1 runs/paper_main-cpu/english-backward-seed2 runs/paper_main-cpu/english-backward-seed3 runs/paper_main-cpu/english-backward-seed4 runs/paper_main-cpu/french-forward-seed0 runs/paper_main-cpu/french-forward-seed1 runs/paper_main-cpu/french-forward-seed2 runs/paper_main-cpu/french-forward-seed3 runs/paper_main-cpu/french-forward-seed4 runs/paper_main-cpu/french-backward-seed0 runs/paper_main-cpu/french-backward-seed1 runs/paper_main-cpu/french-backward-seed2 runs/paper_main-cpu/french-backward-seed3 runs/paper_main-cpu/french-backward-seed4 out=results/paper_main/cpu/comparison report=false

#!/bin/bash
# All that needs a GPU, in one call of under 8 minutes, and one table of it. From the repository's root:
#
#   bash benchmarks/gpu.sh prepare CORPUS   once, anywhere: a text -> tokenizer and shards of at most 40 MiB, in DATA
#   bash benchmarks/gpu.sh run [FOLDER]     on the GPU: writes table.md, stages.tsv, log.txt, pair.jsonl, and a folder
#                                           with throughput.json for each setting, into FOLDER ($OUT, else results-gpu)
#   bash benchmarks/gpu.sh tests            print which files of tests `run` takes
#
# The machine with the GPU needs no network. Wheels of what it lacks, such as Composer, may lie in WHEELS; they are
# installed into a temporary folder. Each stage has a time limit of its own, and all together BUDGET seconds. A second
# call with the same FOLDER goes on with the stages that have not succeeded. DEVICE=cpu tries all of it with tiny sizes.
# The stages of tests need pytest, pytest-timeout, pytest-xdist and hypothesis (requirements.in says why); a file that
# cannot be imported counts as an error, and the others are run. Tests over NCCL are skipped without a second GPU.
#
# Variables: PYTHON (python3) DATA (data/gpu) WHEELS (.whl) BUDGET (460) DEVICE (gpu) STAGES (those to run; all)
set -uo pipefail

PYTHON=${PYTHON:-python3} WHEELS=${WHEELS:-.whl} BUDGET=${BUDGET:-460} DEVICE=${DEVICE:-gpu}
DATA=${DATA:-data/gpu}
MOST_BYTES=$((40 << 20))
export PYTHONUNBUFFERED=1 OMP_WAIT_POLICY=passive TOKENIZERS_PARALLELISM=true WANDB_MODE=disabled

die() {
    echo "benchmarks/gpu.sh: $*" >&2
    exit 2
}

# ------------------------------------------------------------------------------------------------------------- prepare

prepare() {
    local corpus=$1 data=$DATA size=${VOCAB_SIZE:-50257}
    [ -e "$corpus" ] || die "CORPUS=$corpus does not exist; name a text."
    [ ! -e "$data/shards/manifest.json" ] || die "DATA=$data was prepared before; remove it, or name another."
    mkdir -p "$data" || exit 2
    "$PYTHON" train_tokenizer.py "corpus=$corpus" "out=$data/tokenizer" "vocab_size=$size" &&
        "$PYTHON" convert_to_mds.py "corpus=$corpus" "tokenizer=$data/tokenizer" "out=$data/shards" \
            val_share="${VAL_SHARE:-0.05}" || exit 1
    local bytes
    bytes=$(du -sb "$data" | cut -f1)
    [ "$bytes" -le "$MOST_BYTES" ] || die "DATA=$data has $bytes bytes, more than $MOST_BYTES; take a shorter text."
    echo "DATA=$data: $bytes bytes"
}

# ----------------------------------------------------------------------------------------------------------------- run

# stage NAME LIMIT COMMAND...: run a command for at most LIMIT seconds, or what is left of BUDGET; its output goes to
# log.txt, its name, status and seconds to stages.tsv. 124: it took too long; 125: no time was left.
stage() {
    local name=$1 limit=$2 left began status
    shift 2
    [ -z "${STAGES:-}" ] || [[ " $STAGES " == *" $name "* ]] || return 0
    if grep -qP "^$name\t0\t" "$FOLDER/stages.tsv" 2>/dev/null; then
        echo "$name: done before"
        return 0
    fi
    left=$((BUDGET - SECONDS))
    [ "$limit" -le "$left" ] || limit=$left
    began=$SECONDS status=125
    if [ "$limit" -gt 5 ]; then
        printf '\n== %s, at most %d s: %s\n' "$name" "$limit" "$*" >>"$FOLDER/log.txt"
        timeout --kill-after=5 "$limit" "$@" >>"$FOLDER/log.txt" 2>&1 </dev/null
        status=$?
    fi
    sed -i "/^$name\t/d" "$FOLDER/stages.tsv"
    printf '%s\t%d\t%d\n' "$name" "$status" $((SECONDS - began)) >>"$FOLDER/stages.tsv"
    echo "$name: status $status, $((SECONDS - began)) s"
    write_table
}

# Write the table of what is there so far, so that it is there whatever ends this script.
write_table() {
    "$PYTHON" -m benchmarks.gpu_table "$FOLDER" >"$FOLDER/.table.md" 2>>"$FOLDER/log.txt" &&
        mv "$FOLDER/.table.md" "$FOLDER/table.md"
}

install_wheels() {
    SITE=$(mktemp -d) || exit 1
    trap 'rm -rf "$SITE"' EXIT
    "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$SITE" "$WHEELS"/*.whl ||
        exit 1
    export PYTHONPATH=$SITE${PYTHONPATH:+:$PYTHONPATH}
}

# throughput NAME LIMIT KEY=VALUE...
throughput() {
    local name=$1 limit=$2
    shift 2
    stage "$name" "$limit" "$PYTHON" -m benchmarks.throughput "$@" "out=$FOLDER/$name"
}

# pair LIMIT KEY=VALUE...: the same run in both directions, and their comparison.
pair() {
    local limit=$1 direction metrics
    shift
    for direction in forward backward; do
        stage "$direction" "$limit" "$PYTHON" train_composer.py "direction=$direction" "data.path=$DATA/shards" \
            "runs_dir=$RUNS" "run_name=$direction" wandb.mode=disabled progress_bar=false samples.interval=null "$@"
    done
    for direction in forward backward; do
        metrics=$RUNS/$direction/metrics.jsonl
        [ ! -f "$metrics" ] || sed "s/^{/{\"direction\": \"$direction\", /" "$metrics"
    done >"$FOLDER/pair.jsonl"
    write_table
}

# The files with tests that need a GPU, by their mark or a helper's: others import what the machine may lack. Of
# test_throughput.py there is a stage.
test_files() {
    grep -lE 'mark\.gpu|\bON_DEVICE\b' tests/test_*.py | grep -v -e test_throughput.py -e test_gpu_
}

# tests NAME LIMIT MARKS FILE...: -v, because a line for each test stays in the log whatever ends pytest.
tests() {
    local name=$1 limit=$2 marks=$3
    shift 3
    stage "$name" "$limit" "$PYTHON" -m pytest -n0 -v -p no:cacheprovider -m "$marks" --timeout=100 \
        --continue-on-collection-errors "$@"
}

run_all() {
    [ -f "$DATA/shards/manifest.json" ] || die "DATA=$DATA holds no shards; make them: benchmarks/gpu.sh prepare CORPUS"
    mkdir -p "$FOLDER" || exit 2
    RUNS=runs/gpu-$(realpath "$FOLDER" | cksum | cut -d' ' -f1)
    [ -f "$FOLDER/stages.tsv" ] || rm -rf "$RUNS" # of an earlier folder of this name
    touch "$FOLDER/stages.tsv"
    [ ! -d "$WHEELS" ] || install_wheels
    local files
    mapfile -t files < <(test_files)
    # What matters most comes first: the last ones run if there is time.
    if [ "$DEVICE" = cpu ]; then
        local sizes=(model=gpt_nano vocab_size=512 context_length=32 batch_size=4 rounds=1 steps=2)
        throughput chunked 200 "${sizes[@]}" loss=chunked "variants=[bare,trainer]"
        tests tests 100 "gpu and not slow" tests/test_gpu.py
        pair 100 model=gpt_nano data.context_length=64 batch_size=8 max_duration=10ba eval_interval=10ba eval_batches=2
        return
    fi
    local sizes=(model=gpt2 vocab_size=50257 context_length=1024 batch_size=32 precision=bf16 compile=true)
    sizes+=(rounds=3 steps=10)
    throughput chunked 130 "${sizes[@]}" loss=chunked "variants=[bare,trainer,huggingface]"
    tests tests 150 "gpu and not slow" "${files[@]}"
    pair 70 model=gpt2 batch_size=32 precision=bf16 max_duration=150ba eval_interval=150ba eval_batches=8 \
        optim.warmup_steps=30 checkpoint.interval=1ep
    throughput plain 60 "${sizes[@]}" loss=plain "variants=[bare]"
    ! "$PYTHON" -c 'import liger_kernel' 2>/dev/null || throughput liger 60 "${sizes[@]}" loss=liger "variants=[bare]"
    throughput eager 60 "${sizes[@]}" compile=false "variants=[bare,huggingface]"
    tests slow_tests 200 "gpu and slow" "${files[@]}"
}

case "${1:-}" in
prepare)
    [ $# -eq 2 ] || die "give prepare CORPUS"
    prepare "$2"
    ;;
run)
    FOLDER=${2:-${OUT:-results-gpu}}
    run_all
    cat "$FOLDER/table.md"
    ;;
tests) test_files ;;
*) die "give prepare CORPUS, run [FOLDER], or tests" ;;
esac

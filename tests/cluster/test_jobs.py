import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.conversion_runs import contents, parts_done
from helpers.processes import ROOT, skip, wait_until
from helpers.small_data import make_text
from helpers.training_runs import TINY, by_step, losses
from omegaconf import OmegaConf
from schedulers import GridEngine, Scheduler, Slurm

from hindsight.config.listing import ListConfig
from hindsight.studies.listing import list_runs

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.dist, pytest.mark.timeout(600)]

# What makes GPT-2's job small enough for a test.
SMALL = [*TINY, "data.path=data/words", "precision=fp32", "compile=false", "microbatch_size=null", "log_interval=1"]
SMALL_SWEEP = [*TINY, "data.path=data/words"]
NAME_OF_TINY = "gpt_nano-l2-d24-ctx64-h2-t32-words"
"""What the names of such runs begin with: model, what was overridden in it, data."""
LONG_STEPS = 800
LONG = ["direction=backward", *SMALL, f"max_duration={LONG_STEPS}ba", "model.dropout=0.1", "eval_interval=150ba"]
"""A run that takes long enough to be interrupted."""
STARTS_S = 120
"""How long all that is queued may take until it trains."""


APART = """
if [ "${SLURM_NODEID:-${NODE_RANK:-0}}" != 0 ]; then
    [ -n "${APART:-}" ] ||
        APART=1 exec unshare --mount sh -c 'mount -t tmpfs tmpfs /dev/shm && exec bash "$@"' sh "$0" "$@"
    trap 'case $? in 75 | 143) sleep 3; say "the second node leaves" ;; esac' EXIT
fi
"""
"""In site.sh: a second node has shared memory of its own, as a second machine would, and leaves after the first."""
SOON_RENEWED = """
import convert_to_mds
from hindsight.conversion import dask_workers
from hindsight.command_line import run_script
dask_workers.RESUBMIT_INTERVAL_S = 1
run_script("convert_to_mds", convert_to_mds.main)
"""
"""convert_to_mds.py, but for the half minute after which it looks for jobs that have ended."""


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> Path:
    """The project's scripts in a folder of their own, with a site.sh for this machine."""
    folder = tmp_path_factory.mktemp("checkout")
    for path in ROOT.glob("*.py"):
        shutil.copy(path, folder)
    for name in ("conf", "hindsight", "jobs", "logs"):
        shutil.copytree(ROOT / name, folder / name)
    environment = Path(sys.executable).parent
    site = f"export PATH={environment}:$PATH LOGS=logs WANDB_MODE=offline TOKENIZERS_PARALLELISM=false\n{APART}"
    (folder / "jobs" / "site.sh").write_text(site)
    (folder / "data").mkdir()
    shutil.copytree(shards, folder / "data" / "words")
    return folder


@pytest.fixture(scope="module", params=[Slurm, GridEngine], ids=lambda kind: kind.__name__)
def scheduler(request: pytest.FixtureRequest, checkout: Path) -> Iterator[Scheduler]:
    """Slurm, then Grid Engine, started here and stopped at the end."""
    kind: type[Scheduler] = request.param
    if missing := kind.missing():
        skip(f"{kind.__name__} lacks {', '.join(missing)}, whose Debian packages docs/clusters.md names")
    for name in ("logs", "runs"):
        shutil.rmtree(checkout / name, ignore_errors=True)
    (checkout / "logs").mkdir()
    scheduler = kind(checkout)
    try:
        scheduler.start()
        yield scheduler
    finally:
        scheduler.stop()


@pytest.fixture(autouse=True)
def _logs_of_a_failure(request: pytest.FixtureRequest, scheduler: Scheduler) -> Iterator[None]:
    """Show what servers and jobs have written where a test has failed, before the next one adds to it."""
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        sys.stdout.write(scheduler.log())


def steps(checkout: Path, run: str) -> int:
    return max(by_step(checkout / "runs" / run), default=0)


def job_log(checkout: Path, run: str, job: str) -> str:
    return (checkout / "logs" / f"{run}-{job}" / "job.log").read_text()


def starts(checkout: Path, run: str, jobs: dict[str, str]) -> int:
    """How often a job was started."""
    return job_log(checkout, run, jobs[run]).count(" starts on ")


def small_experiment(*changes: str) -> str:
    """What stands in conf/experiment/ for a model that is small enough for a test."""
    given = [argument for argument in [*SMALL, *changes] if not argument.startswith(("model=", "data.path="))]
    values = OmegaConf.to_yaml(OmegaConf.from_dotlist(given))
    return f"# @package _global_\ndefaults:\n  - override /model: gpt_nano\n\n{values}"


SLEEPER = """
import signal, sys, time
from pathlib import Path

signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
if not Path(sys.argv[-1]).exists():
    Path(sys.argv[-1]).touch()
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def sleeper(scheduler: Scheduler, checkout: Path) -> str:
    """A job with the options of training that sleeps until it is interrupted, and ends when it is started again."""
    (checkout / "sleeper.py").write_text(SLEEPER)
    (checkout / "runs").mkdir()
    job = (checkout / "jobs" / f"train_gpt2.{scheduler.suffix}").read_text()
    (checkout / "jobs" / f"sleep.{scheduler.suffix}").write_text(job.replace("train experiment=gpt2", "run sleeper.py"))
    return scheduler.submit("sleep", "runs/slept", options=scheduler.short_of_time)


@pytest.fixture(autouse=True)
def _sleeper_is_first(sleeper: str) -> None:
    """Its time is up while the other tests run."""


def test_a_wrong_config_ends_the_job_within_seconds_with_status_2(scheduler: Scheduler, checkout: Path):
    job = scheduler.submit("train_gpt2", "direction=sideways", *SMALL, CPU_PROCESSES="1")
    assert scheduler.wait(job, 15) == [2]
    assert "direction" in job_log(checkout, "train_gpt2", job)


def test_a_job_without_arguments_trains_forward_on_the_data_that_the_site_names(scheduler: Scheduler, checkout: Path):
    site, experiment = checkout / "jobs" / "site.sh", checkout / "conf" / "experiment" / "gpt2.yaml"
    settings, whole = site.read_text(), experiment.read_text()
    try:
        job = scheduler.submit("train_gpt2", CPU_PROCESSES="1")
        assert scheduler.wait(job, 30) == [2]
        assert "DATA in jobs/site.sh names no shards" in job_log(checkout, "train_gpt2", job)
        site.write_text(f"{settings}\nDATA=data/words\n")
        experiment.write_text(small_experiment("max_duration=3ba", "run_name=unasked"))
        job = scheduler.submit("train_gpt2", CPU_PROCESSES="1")
        assert scheduler.wait(job, STARTS_S) == [0]
        assert steps(checkout, "unasked") == 3
        assert "direction: forward" in (checkout / "runs" / "unasked" / "config.yaml").read_text()
    finally:
        site.write_text(settings)
        experiment.write_text(whole)


def test_jobs_at_once_on_one_node_and_requeued_ones_have_the_losses_of_one_that_was_left_alone(
    scheduler: Scheduler, checkout: Path
):
    jobs = {
        run: scheduler.submit(
            "train_gpt2_gpus", *LONG, f"run_name={run}", options=scheduler.first_node, CPU_PROCESSES="2"
        )
        for run in ("whole", "parts")
    }
    wait_until("both train", lambda: steps(checkout, "parts") and steps(checkout, "whole"), STARTS_S)
    assert steps(checkout, "whole") < LONG_STEPS
    assert scheduler.name_of(jobs["parts"]) == "parts"
    scheduler.warn(jobs["parts"])
    wait_until("the requeue", lambda: scheduler.hurry(jobs["parts"]) or starts(checkout, "parts", jobs) == 2, 60)
    done = steps(checkout, "parts")
    wait_until("it goes on", lambda: steps(checkout, "parts") > done, STARTS_S)
    scheduler.preempt(jobs["parts"])
    assert scheduler.wait(jobs["whole"], STARTS_S) == [0]
    assert scheduler.wait(jobs["parts"], STARTS_S) == [0]
    assert starts(checkout, "parts", jobs) == 3
    assert starts(checkout, "whole", jobs) == 1
    whole, parts = (losses(checkout / "runs" / run) for run in ("whole", "parts"))
    assert parts == whole
    assert [line.step for line in parts] == [*range(1, LONG_STEPS + 1)]
    for run in jobs:
        assert list((checkout / "runs" / run / "checkpoints").glob(f"*-ba{LONG_STEPS}-rank0.pt"))
        assert "resource_tracker" not in job_log(checkout, run, jobs[run])  # it outlives the warning


def test_two_nodes_train_one_run_with_the_losses_of_two_processes_on_one(scheduler: Scheduler, checkout: Path):
    job = scheduler.submit("train_gpt2_nodes", *LONG, "run_name=nodes", CPU_PROCESSES="1")
    wait_until("it trains", lambda: steps(checkout, "nodes"), STARTS_S)
    scheduler.warn(job)
    wait_until("the requeue", lambda: "back into the queue" in job_log(checkout, "nodes", job), 60)
    wait_until("its place in the queue", lambda: scheduler.waits_again(job), 60)
    if scheduler.is_one_host:
        log = job_log(checkout, "nodes", job)  # Grid Engine at times deletes a job that leaves before its other nodes
        assert log.index("the second node leaves") < log.index("back into the queue")
        scheduler.cancel(job)
        job = scheduler.submit("train_gpt2_nodes", *LONG, "run_name=nodes", CPU_PROCESSES="1")
    assert scheduler.wait(job, STARTS_S) == [0]
    assert "goes on from step" in job_log(checkout, "nodes", job)
    assert losses(checkout / "runs" / "nodes") == losses(checkout / "runs" / "whole")


def test_a_failed_rank_takes_the_job_down_on_all_nodes_at_once(scheduler: Scheduler, checkout: Path):
    arguments = ["direction=forward", *SMALL, "max_duration=100000ba", "run_name=failing"]
    job = scheduler.submit("train_gpt2_nodes", *arguments, CPU_PROCESSES="1")
    wait_until("it trains", lambda: steps(checkout, "failing"), STARTS_S)
    (process,) = processes_of("failing", rank=1)
    os.kill(process, signal.SIGKILL)
    assert scheduler.wait(job, 20) != [0]
    wait_until("end of its processes", lambda: not processes_of("failing", rank=0), 5)


def processes_of(run: str, rank: int) -> list[int]:
    """The process that trains a run with this rank, if there is one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode().split("\0")
            variables = (process / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended
            continue
        if words[1:2] == ["train_composer.py"] and f"run_name={run}" in words and f"RANK={rank}".encode() in variables:
            found.append(int(process.name))
    return found


def test_an_array_of_both_directions_and_two_seeds_is_compared_when_it_is_done(scheduler: Scheduler, checkout: Path):
    small = [argument for argument in SMALL if not argument.startswith("model=")]
    (checkout / "seeds.txt").write_text("# two pairs\nmodel=gpt_nano seed=1\n\nmodel=gpt_nano seed=2\n")
    options = scheduler.array(4)
    pairs = scheduler.submit(
        "train_pairs", "seeds.txt", *small, "max_duration=40ba", options=options, CPU_PROCESSES="1"
    )
    compare = scheduler.submit("compare", "runs/seeds", options=scheduler.after(pairs))
    assert scheduler.wait(pairs, STARTS_S) == [0, 0, 0, 0]
    assert scheduler.wait(compare, 60) == [0]
    for direction in ("forward", "backward"):
        for seed in (1, 2):
            run = f"{NAME_OF_TINY}-{direction}-seed{seed}"
            assert steps(checkout, f"seeds/{run}") == 40
            assert list((checkout / "logs").glob(f"{run}-{pairs}.*/job.log"))
    compared = json.loads((checkout / "runs" / "seeds-comparison" / "comparison.json").read_text())
    assert len(compared["pairs"]) == 2


def study_file(*settings: str) -> str:
    """A study of both directions that is small enough for a test, at every scale."""
    values = OmegaConf.to_container(OmegaConf.from_dotlist([*TINY, *settings]))
    study = {
        "question": "Does an array train what one process does?",
        "corpora": {"words": {"corpus": "corpus.txt"}},
        "tokenizers": {"own": {"vocab_size": 300}},
        "convert": {"block_length": 64, "val_share": 0.2},
        "settings": values,
        "axes": {"order": ["forward", "backward"], "seed": [0]},
        "evaluation": None,
        "report": ["gap"],
    }
    return OmegaConf.to_yaml(study)


def test_a_study_is_an_array_between_its_data_and_its_report(scheduler: Scheduler, checkout: Path, corpus: Path):
    (checkout / "words.yaml").write_text(study_file("max_duration=10ba"))
    asked = ["study=words.yaml", "scale=tiny", f"corpus_dir={corpus.parent}", "data_dir=studied"]

    def submit(*more: str, options: list[str]) -> str:
        return scheduler.submit("study", *asked, *more, options=options, CPU_PROCESSES="1")

    data = submit("only=data", options=[*scheduler.without_gpus])
    runs = submit(options=[*scheduler.array(2, scheduler.first_run), *scheduler.after(data)])
    report = submit("only=report", options=[*scheduler.without_gpus, *scheduler.after(runs)])
    assert scheduler.wait(data, STARTS_S) == [0]
    assert scheduler.wait(runs, STARTS_S) == [0, 0]
    assert scheduler.wait(report, STARTS_S) == [0]
    done = list_runs(ListConfig(runs_dir=str(checkout / "runs" / "words-tiny")))
    assert {row.name: (row.state.name, row.step) for row in done} == {
        "forward-seed0": ("done", 10),
        "backward-seed0": ("done", 10),
    }
    told = [(checkout / "logs" / f"study-{runs}.{scheduler.first_run + task}" / "job.log") for task in (0, 1)]
    assert all(f"task={task}" in log.read_text() for task, log in enumerate(told))
    assert (checkout / "results" / "words" / "tiny" / "report.md").is_file()


def test_a_task_of_a_study_that_is_warned_saves_and_goes_on(scheduler: Scheduler, checkout: Path, corpus: Path):
    (checkout / "long.yaml").write_text(study_file(f"max_duration={LONG_STEPS}ba"))
    asked = ["study=long.yaml", "scale=tiny", f"corpus_dir={corpus.parent}", "data_dir=studied"]
    options = [*scheduler.array(1, scheduler.first_run), *scheduler.first_node]

    def submit() -> tuple[str, Path]:
        job = scheduler.submit("study", *asked, options=options, CPU_PROCESSES="1")
        return job, checkout / "logs" / f"study-{job}.{scheduler.first_run}" / "job.log"

    job, log = submit()
    wait_until("it trains", lambda: steps(checkout, "long-tiny/forward-seed0"), STARTS_S)
    scheduler.warn(job)
    wait_until("the requeue", lambda: "back into the queue" in log.read_text(), 60)
    assert "status 75" in log.read_text()
    wait_until("its place in the queue", lambda: scheduler.waits_again(job), 60)
    if (
        scheduler.is_one_host
    ):  # where Grid Engine at times waits for ever to clean up after a task that was the only job
        scheduler.cancel(job)
        job, log = submit()
    else:
        wait_until("it starts", lambda: scheduler.hurry(job) or log.read_text().count(" starts on ") == 2, 60)
    assert scheduler.wait(job, STARTS_S) == [0]
    found = losses(checkout / "runs" / "long-tiny" / "forward-seed0")
    assert [line.step for line in found] == [*range(1, LONG_STEPS + 1)]


def test_tokenizer_and_an_array_of_conversions_write_what_one_call_writes(
    scheduler: Scheduler, checkout: Path, corpus: Path, tokenizer_dir: Path, shards: Path
):
    shutil.rmtree(checkout / "made", ignore_errors=True)
    tokenizer = scheduler.submit("tokenizer", f"corpus={corpus}", "out=made/tokenizer", "vocab_size=300")
    (checkout / "corpora.txt").write_text(f"corpus={corpus} out=made/a\ncorpus={corpus} out=made/b seed=1\n")
    settings = ["tokenizer=made/tokenizer", "block_length=64", "val_share=0.2", "shard_bytes=1172"]
    options = [*scheduler.array(2), *scheduler.after(tokenizer)]
    job = scheduler.submit("convert", "corpora.txt", *settings, options=options)
    assert scheduler.wait(tokenizer, 60) == [0]
    assert scheduler.wait(job, 60) == [0, 0]
    assert (checkout / "made" / "tokenizer" / "tokenizer.json").read_bytes() == (
        tokenizer_dir / "tokenizer.json"
    ).read_bytes()
    for path in (path for split in ("train", "val") for path in (shards / split).iterdir()):
        assert (checkout / "made" / "a" / path.parent.name / path.name).read_bytes() == path.read_bytes()
    assert (checkout / "made" / "b" / "manifest.json").exists()


def test_jobs_of_dask_convert_as_one_machine_does_and_are_submitted_again_when_they_are_killed(
    scheduler: Scheduler, checkout: Path, tokenizer_dir: Path
):
    shutil.rmtree(checkout / "made", ignore_errors=True)
    (checkout / "large").mkdir(exist_ok=True)
    for number in range(3):  # a part each
        text = make_text(26_000, seed=number)
        for copy in range(5):
            (checkout / "large" / f"{number}-{copy}.txt").write_text(text)
    convert = ["corpus=large", f"tokenizer={tokenizer_dir}"]
    scheduler.call(sys.executable, "convert_to_mds.py", *convert, "out=made/here")
    by_jobs = [sys.executable, "-c", SOON_RENEWED, *convert, "out=made/jobs", f"engine={scheduler.engine}", "workers=1"]
    impossible = {"sge": "-l hostname=nowhere", "slurm": "--nodelist=nowhere"}[scheduler.engine]
    directives = {f"DASK_JOBQUEUE__{scheduler.engine.upper()}__JOB_EXTRA_DIRECTIVES": f"['{impossible}']"}
    refused = scheduler.begin(*by_jobs, **directives)
    assert "no such job can be submitted" in refused.communicate(timeout=60)[0]
    assert refused.returncode == 2
    process = scheduler.begin(*by_jobs)
    wait_until("a part", lambda: parts_done(checkout / "made" / ".jobs.partial"), STARTS_S, 0.01)
    (killed,) = scheduler.named("convert-jobs")
    scheduler.cancel(killed)
    wait_until("another job", lambda: set(scheduler.named("convert-jobs")) - {killed}, 60, 0.05)
    told = process.communicate(timeout=STARTS_S)[0]
    assert process.returncode == 0, told
    assert "1 jobs are submitted" in told
    assert contents(checkout / "made" / "jobs") == contents(checkout / "made" / "here")
    wait_until("end of Dask's jobs", lambda: not scheduler.named("convert-jobs"), 20)


def test_a_sweep_is_an_array_of_slurm(scheduler: Scheduler, checkout: Path):
    if not isinstance(scheduler, Slurm):
        pytest.skip("submitit has no launcher for Grid Engine")
    launcher = ["hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=10"]
    sweep = ["-m", "direction=forward,backward", *SMALL_SWEEP, "max_duration=5ba", "runs_dir=runs/sweep"]
    told = scheduler.call(sys.executable, "train_composer.py", *sweep, *launcher, timeout_s=STARTS_S)
    for direction in ("forward", "backward"):
        run = f"{NAME_OF_TINY}-{direction}-seed0"
        assert run in told
        assert steps(checkout, f"sweep/{run}") == 5
    assert len(list((checkout / "runs" / "sweep" / ".sweep" / ".submitit").glob("*_[01]/*_log.out"))) == 2


def test_tasks_of_a_study_are_an_array_of_slurm(scheduler: Scheduler, checkout: Path, corpus: Path):
    if not isinstance(scheduler, Slurm):
        pytest.skip("submitit has no launcher for Grid Engine")
    (checkout / "swept.yaml").write_text(study_file("max_duration=5ba"))
    launcher = ["hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=10"]
    asked = ["study=swept.yaml", "scale=tiny", f"corpus_dir={corpus.parent}", "data_dir=studied"]
    scheduler.call(sys.executable, "run_study.py", *asked, "only=data", timeout_s=STARTS_S)
    scheduler.call(sys.executable, "run_study.py", "-m", *asked, "task=range(0,2)", *launcher, timeout_s=STARTS_S)
    done = list_runs(ListConfig(runs_dir=str(checkout / "runs" / "swept-tiny")))
    assert {row.name: row.state.name for row in done} == {"forward-seed0": "done", "backward-seed0": "done"}
    assert len(list((checkout / "runs" / ".sweep" / ".submitit").glob("*_[01]/*_log.out"))) == 2


def test_a_job_whose_time_is_up_goes_on_as_a_chain(scheduler: Scheduler, checkout: Path, sleeper: str):
    assert scheduler.wait(sleeper, 150) == [0]
    log = job_log(checkout, "train_gpt2", sleeper)
    assert log.count(" starts on ") == 2
    assert log.count("SIGUSR1: asked to leave") == 1
    assert log.count("status 75") == 1

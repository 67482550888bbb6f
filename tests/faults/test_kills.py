"""SIGKILL at any moment of a training run: the run goes on, with the losses of one that was never killed."""

import signal

import pytest
from helpers.killed_runs import RUN, STEPS, kill_at_random, kill_group, shared_memory
from helpers.training_runs import lines, losses

pytestmark = [pytest.mark.slow, pytest.mark.dist]


@pytest.mark.parametrize(("ranks", "num_workers", "kills"), [(1, 0, 12), (1, 2, 6), (2, 0, 6), (2, 2, 3)])
def test_random_kills_change_no_loss(fork_server, undisturbed, shards, tmp_path, ranks, num_workers, kills):
    arguments = [*RUN, f"data.path={shards}", f"data.num_workers={num_workers}"]
    seed = 10 * ranks + num_workers
    whole, seconds = undisturbed[ranks]
    for folder in kill_at_random(fork_server, arguments, tmp_path, ranks, kills, seed, longest_s=seconds):
        assert losses(folder) == whole
    assert not list(tmp_path.rglob(".saving-*"))


MOMENTS = {
    "before the first step": lambda folder: (folder / "config.yaml").exists(),
    "in the first steps": lambda folder: lines(folder) >= 1,
    "while a checkpoint is written": lambda folder: list(folder.glob("checkpoints/.saving-ep0-ba8-*")),
    "just after a checkpoint has its name": lambda folder: list(folder.glob("checkpoints/ep*-ba8-*")),
    "in an evaluation": lambda folder: list(folder.glob("checkpoints/ep*-ba10-*")),
    "in an evaluation at the end of an epoch": lambda folder: list(folder.glob("checkpoints/ep*-ba30-*")),
    "after the last step": lambda folder: lines(folder) >= STEPS,
    "while the last checkpoint is written": lambda folder: list(folder.glob(f"checkpoints/.saving-*-ba{STEPS}-*")),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_at_a_chosen_moment_changes_no_loss(fork_server, whole, shards, tmp_path, moment):
    for attempt in range(5):  # some moments last milliseconds, and may be missed
        folder = tmp_path / f"killed{attempt}"
        arguments = [*RUN, f"data.path={shards}", f"runs_dir={tmp_path}", f"run_name={folder.name}"]
        processes = fork_server.start(arguments)
        hit = fork_server.reaches(lambda folder=folder: MOMENTS[moment](folder), interval_s=0.0005)
        kill_group(processes)
        if fork_server.statuses() == [-signal.SIGKILL] and hit:
            break
    else:
        pytest.fail(f"no kill hit the moment: {fork_server.output()}")
    assert fork_server.run(arguments) == [0], fork_server.output()
    assert losses(folder) == whole[1]


def test_a_run_goes_on_beside_another_on_the_same_data_and_shares_no_memory_with_it(
    fork_server, whole, shards, tmp_path, tmp_path_factory
):
    neighbour = fork_server.another(tmp_path_factory.mktemp("neighbour"))
    try:
        common = [*RUN, f"data.path={shards}", f"runs_dir={tmp_path}", "data.num_workers=2"]
        other = neighbour.start([*common, "run_name=other", "max_duration=100000ba", "checkpoint.interval=1000ba"], 2)
        assert neighbour.reaches(lambda: lines(tmp_path / "other") >= 5), neighbour.output()
        processes = fork_server.start([*common, "run_name=killed"])
        assert fork_server.reaches(lambda: lines(tmp_path / "killed") >= 5)
        assert not shared_memory([*other, *processes])
        kill_group(processes)
        assert fork_server.statuses() == [-signal.SIGKILL]
        assert fork_server.run([*common, "run_name=killed"]) == [0], fork_server.output()
        reached = lines(tmp_path / "other")
        assert neighbour.reaches(lambda: lines(tmp_path / "other") > reached + 50), neighbour.output()
        kill_group(other, signal.SIGTERM)
        assert neighbour.statuses() == [75, 75], neighbour.output()
    finally:
        neighbour.close()
    assert losses(tmp_path / "killed") == whole[1]

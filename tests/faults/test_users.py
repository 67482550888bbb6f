"""Two users on one machine at a time, of whom neither may touch what is the other's."""

import shutil
import signal
import subprocess

import pytest
from helpers.killed_runs import RUN, STEPS, ForkServer, kill_group
from helpers.processes import skip
from helpers.training_runs import lines, losses

pytestmark = [pytest.mark.slow, pytest.mark.dist]

NOBODY = 65534
READS_ALL = "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"
"""Python and this checkout may lie in root's home. It allows nothing with what others write."""


def open_folder(path):
    """A folder that all may write to, as /tmp is."""
    path.mkdir()
    path.chmod(0o1777)
    return path


@pytest.fixture(scope="module")
def users(fork_server, tmp_path_factory):
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *READS_ALL]
    if shutil.which("setpriv") is None or subprocess.run([*become, "true"], capture_output=True).returncode:
        skip("only root can become another user, by setpriv")
    folder = tmp_path_factory.mktemp("users")
    temporary = open_folder(folder / "tmp")
    servers = [
        fork_server.another(open_folder(folder / "root"), temporary),
        ForkServer(open_folder(folder / "nobody"), temporary, become),
    ]
    yield servers
    for server in servers:
        server.close()


@pytest.mark.parametrize("killed", [0, 1], ids=["root is killed", "nobody is killed"])
def test_a_killed_run_goes_on_beside_that_of_another_user(users, whole, shards, tmp_path, killed):
    runs, uids = open_folder(tmp_path / "runs"), (0, NOBODY)
    arguments = [[*RUN, f"data.path={shards}", f"runs_dir={runs}/{uid}", "run_name=a"] for uid in uids]
    folders = [runs / f"{uid}" / "a" for uid in uids]
    other = 1 - killed
    attempts = [user.start([*each, "max_duration=4000ba"]) for user, each in zip(users, arguments, strict=True)]
    for user, folder in zip(users, folders, strict=True):
        assert user.reaches(lambda folder=folder: lines(folder) >= 5), user.output()
    kill_group(attempts[killed])
    users[killed].statuses()
    users[killed].start(arguments[killed])
    assert users[killed].statuses() == [0], users[killed].output()
    assert losses(folders[killed]) == whole[1]
    reached = lines(folders[other])
    assert users[other].reaches(lambda: lines(folders[other]) > reached + 50), users[other].output()
    kill_group(attempts[other], signal.SIGTERM)
    assert users[other].statuses() == [75], users[other].output()
    assert losses(folders[other])[: STEPS - 1] == whole[1][:-1]  # where the short run ends, it evaluates

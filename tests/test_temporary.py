import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.processes import ROOT, is_alive, skip, wait_until

from hindsight.config.data import DataConfig
from hindsight.errors import InputError
from hindsight.loading.remote import Remote, cache_folder
from hindsight.temporary import private_folder, users_folder

NOBODY = 65534


@pytest.fixture
def place(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder for temporary files, where all users may write, with a short name."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        place = Path(folder)
        place.chmod(0o1777)
        monkeypatch.setattr("tempfile.tempdir", str(place))
        monkeypatch.setattr("hindsight.temporary._folder", None)  # a command may have run in this process
        yield place


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_a_users_folder_is_made_for_that_user_alone_and_one_of_earlier_versions_becomes_so(place):
    folder = users_folder()
    assert (folder.parent, mode(folder)) == (place, 0o700)
    folder.chmod(0o755)
    assert users_folder() == folder
    assert mode(folder) == 0o700


def test_a_link_in_place_of_a_folder_is_refused_and_what_it_names_stays_as_it_is(place, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir(mode=0o755)
    (place / f"hindsight-{os.getuid()}").symlink_to(precious)
    with pytest.raises(InputError, match=r"hindsight-\d+ is a symbolic link.* another place by TMPDIR"):
        users_folder()
    assert mode(precious) == 0o755
    assert not list(precious.iterdir())


@pytest.mark.parametrize("kind", [os.mkfifo, Path.touch])
def test_what_is_no_folder_is_refused(place, kind):
    kind(place / f"hindsight-{os.getuid()}")
    with pytest.raises(InputError, match=r"hindsight-\d+ is no folder"):
        users_folder()


def test_a_folder_that_others_may_write_is_refused(place):
    folder = place / f"hindsight-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o770)
    with pytest.raises(InputError, match=r"may be written by others \(mode 770\)"):
        users_folder()


def test_a_folder_of_another_user_is_refused_wherever_it_lies_on_the_way(place, tmp_path):
    if os.geteuid():
        skip("only root can give a folder to another user")
    folder = place / f"hindsight-{os.getuid()}"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    with pytest.raises(InputError, match=rf"belongs to another user \({NOBODY}\)"):
        users_folder()
    theirs = place / "cache"
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    (place / "link").symlink_to(tmp_path)
    os.chown(place / "link", NOBODY, NOBODY, follow_symlinks=False)
    for way in (theirs, place / "link"):
        with pytest.raises(InputError, match=rf"{way} belongs to another user .* data.cache_dir"):
            private_folder(way / "run", "data.cache_dir")
        assert not (way / "run").exists()


def test_a_folder_whose_parent_lacks_the_sticky_bit_is_refused(place):
    place.chmod(0o777)
    with pytest.raises(InputError, match=r"lacks the sticky bit; set it \(chmod \+t\)"):
        users_folder()
    assert not list(place.iterdir())


def test_a_cache_lies_in_the_users_folder_unless_another_place_is_given(place, tmp_path):
    remote = Remote("s3://bucket/data", 1, 1.0)
    folder = cache_folder(remote, DataConfig(path="s3://bucket/data"), tmp_path / "runs" / "a")
    assert folder.parent == place / f"hindsight-{os.getuid()}"
    given = DataConfig(path="s3://bucket/data", cache_dir=str(tmp_path / "cache"))
    assert cache_folder(remote, given, tmp_path / "runs" / "a").parent == tmp_path / "cache"


USE = """
import os, sys, tempfile, time
from hindsight import temporary
temporary.use_own_folder()
tempfile.mkdtemp(prefix="wandb-")
print(tempfile.gettempdir(), flush=True)
sys.stdin.read()
"""


def use(place: Path, **files) -> tuple[subprocess.Popen, Path]:
    """Start a process that keeps something in its folder; it ends with its standard input."""
    process = subprocess.Popen(
        [sys.executable, "-c", USE],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(place), "RANK": "0"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **files,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_what_a_killed_process_left_is_removed_by_the_next_and_what_is_used_stays(place):
    killed, left = use(place)
    living, used = use(place)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert any(left.glob("wandb-*"))
    other, others = use(place)
    assert not left.exists()
    assert any(used.glob("wandb-*"))
    for process in (living, other):
        process.communicate()
    assert not used.exists()
    assert not others.exists()
    assert {path.name for path in place.rglob("*")} == {f"hindsight-{os.getuid()}", "lock"}


def test_where_the_folders_path_would_be_too_long_for_a_socket_the_given_one_is_used(place):
    long = place / ("a" * 60)
    long.mkdir()
    process, folder = use(long)
    process.communicate()
    assert folder == long


ORPHAN = f"""import os; parent = os.getppid()
{USE}
while os.getppid() == parent:
    time.sleep(0.01)
time.sleep(0.1)
"""

LAUNCHED = """
import subprocess, sys, tempfile
folder = tempfile.mkdtemp()
with open(f"{folder}/rank1.stdout.txt", "w") as output:
    process = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE, stdout=output)
print(folder, process.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("is_killed", [False, True])
def test_the_folder_that_a_killed_launcher_left_is_removed_with_that_of_its_process(place, is_killed):
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHED, ORPHAN],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(place)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert launcher.stdout is not None
    folder, process = launcher.stdout.readline().split()
    wait_until("the process's folder", (Path(folder) / "rank1.stdout.txt").read_text, 10, 0.02)
    if is_killed:
        os.kill(int(process), signal.SIGKILL)
        wait_until("its end", lambda: not is_alive(int(process)), 10, 0.02)
    launcher.kill()
    launcher.communicate()  # which ends the process by its standard input
    wait_until("its end", lambda: not is_alive(int(process)), 10, 0.02)
    if is_killed:
        assert Path(folder).exists()
        use(place)[0].communicate()
    assert not Path(folder).exists()

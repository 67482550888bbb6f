"""What a command takes for granted, and some machines lack: a user with a home, a launcher that says all or nothing.

Also what the processor can do.
"""

import getpass
import os
import shutil
import sys
import time
from pathlib import Path

from hindsight import temporary
from hindsight.errors import InputError

SINGLE = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "NODE_RANK": 0}
"""Variables by which a launcher tells a process its place, and their values for a process that is alone."""
MASTER = ("MASTER_ADDR", "MASTER_PORT")
"""Variables that say where the processes meet."""
CACHES = {
    "HF_HOME": "huggingface",
    "WANDB_CACHE_DIR": "wandb",
    "WANDB_DATA_DIR": "wandb-data",
    "MPLCONFIGDIR": "matplotlib",
}
"""Variables that say where libraries write, and a name for that folder."""


def give_home() -> None:
    """Let a user without a home, or without an entry in passwd (docker run -u 54321), have both in this process.

    W&B, Hugging Face and PyTorch keep settings and caches there, and end with a traceback if they cannot find it. A
    home that can be read stays, for it holds the user's keys: ~/.aws/credentials, ~/.netrc.
    """
    home = os.path.expanduser("~")
    if home == "~" or not (os.path.isdir(home) and os.access(home, os.R_OK | os.X_OK)):
        os.environ["HOME"] = _own("home")
    elif not os.access(home, os.W_OK):  # mounted read-only, as on many compute nodes
        _keep_caches_elsewhere(home)
    try:
        getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        os.environ["LOGNAME"] = str(os.getuid())


def _own(name: str) -> str:
    path = temporary.users_folder() / name
    path.mkdir(mode=0o700, exist_ok=True)
    return str(path)


def _keep_caches_elsewhere(home: str) -> None:
    given = os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    hub = os.environ.get("HF_HOME") or os.path.join(given, "huggingface")
    os.environ.setdefault("HF_TOKEN_PATH", os.path.join(hub, "token"))  # a login lies among the caches
    caches = os.environ.setdefault("XDG_CACHE_HOME", _own("cache"))
    for variable, name in CACHES.items():
        os.environ.setdefault(variable, os.path.join(caches, name))


def let_threads_run_before_forks() -> None:
    """Pause before each fork of this process, and of those that it forks, on a Python whose children may hang.

    A child that is forked while another thread makes or frees its thread state waits for ever for a lock which that
    thread held (https://github.com/python/cpython/issues/112275; delete this with Python 3.10.15, 3.11.10 or 3.12 as
    the oldest). gloo's threads do so as they free the tensors of a collective, and loaders fork their workers just
    after one: 7 of 6000 such forks hung, with the pause 0 of 11000.
    """
    if sys.version_info < (3, 10, 15) or (3, 11) <= sys.version_info < (3, 11, 10):
        os.register_at_fork(before=lambda: time.sleep(0.005))


def processor_flags() -> set[str]:
    """Names of the instruction sets of an x86 processor, as Linux lists them; none elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())


def require_cpp_compiler() -> None:
    """Require what torch.compile compiles with for a CPU, found as it finds it; InputError if it is not there.

    https://github.com/pytorch/pytorch/blob/v2.7.0/torch/_inductor/config.py, cpp.cxx.
    """
    named = os.environ.get("CXX")
    compiler = named if named is not None else "clang++" if sys.platform == "darwin" else "g++"
    if shutil.which(compiler) is None and "TORCH_INDUCTOR_INSTALL_GXX" not in os.environ:
        missing = f"there is no {compiler}" if named is None else f"CXX={named} is no program"
        raise InputError(
            f"compile=true needs a C++ compiler on a CPU, and {missing}; install g++ (`apt-get install g++`), name "
            "another by CXX, or leave compile=false."
        )


def is_first_rank() -> bool:
    """Whether this process is alone, or the one of its launcher whose output people see."""
    return os.environ.get("RANK", "0") == "0" or _is_alone()


def _is_alone() -> bool:
    return os.environ.get("WORLD_SIZE", "1") == "1"


def check_launch() -> None:
    """Require that the variables of a launcher are whole, or left out; InputError that names the one at fault."""
    given = {name: os.environ[name] for name in SINGLE if os.environ.get(name, "")}
    way_out = (
        "start several processes by `composer -n N train_composer.py ...`, or, if the variable was left over from "
        f"torchrun, Slurm or another program, `unset {' '.join([*SINGLE, *MASTER])}`."
    )
    for name, value in given.items():
        if not (value.isascii() and value.isdigit()) or (name.endswith("SIZE") and int(value) == 0):
            raise InputError(f"{name}={value} in the environment is no number of processes, or of one: {way_out}")
    place = SINGLE | {name: int(value) for name, value in given.items()}
    if place == SINGLE:
        return
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", *MASTER):
        if not os.environ.get(name, ""):
            other, value = next((key, value) for key, value in given.items() if int(value) != SINGLE[key])
            raise InputError(f"{other}={value} in the environment, but no {name}: {way_out}")
    for rank, size in (("RANK", "WORLD_SIZE"), ("LOCAL_RANK", "LOCAL_WORLD_SIZE"), ("LOCAL_WORLD_SIZE", "WORLD_SIZE")):
        if place[rank] > place[size] - rank.endswith("RANK"):
            raise InputError(f"{rank}={place[rank]} in the environment does not fit {size}={place[size]}: {way_out}")
    port = os.environ["MASTER_PORT"]
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 1 << 16):
        raise InputError(f"MASTER_PORT={port} in the environment is no port: {way_out}")

"""Real Slurm and real Grid Engine on this machine, from Debian's packages, as root and without systemd.

Each has its files in a folder of its own and listens on ports that were free; `stop` ends all jobs and servers. Slurm
has two nodes, each a slurmd on this host; Grid Engine has this host. Both believe that there are GPUs, so that jobs can
ask for some; nothing uses them.
"""

import getpass
import os
import re
import shutil
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp

from helpers.processes import wait_until

GRID_ENGINE = Path("/usr/lib/gridengine")
NODE_SLOTS = 8
"""Jobs and processes that a node takes at once, whatever the machine has."""
HOST_SLOTS = 2 * NODE_SLOTS
"""The same of Grid Engine's one host, which stands for two nodes."""
SOON = timedelta(seconds=5)
START_S = 30
"""How long a server may take to start."""


def free_ports(number: int) -> list[int]:
    """Ports of this machine that nothing listens on."""
    sockets = [socket.create_server(("", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Scheduler(ABC):
    """Servers in a folder, and what the tests do with them.

    Args:
        checkout: folder from which jobs are submitted.
    """

    suffix: str
    """Name of its job scripts after the dot."""
    programs: tuple[str, ...]
    """What must be installed."""
    engine: str
    """Its name for conversions."""
    is_one_host = False
    """Whether its nodes are one host to it, which it does not clear of a requeued job that was there twice."""
    first_node: tuple[str, ...] = ()
    """Options of a job that runs on the first node."""
    first_run = 0
    """Number of the first task of an array that trains the runs of a study."""
    without_gpus: tuple[str, ...] = ()
    """Options of a job that needs no GPUs, though its script asks for some."""
    short_of_time: tuple[str, ...] = ()
    """Options of a job that is soon warned because its time is up."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        self.folder = Path(mkdtemp(prefix=f"{type(self).__name__.lower()}-"))
        self.folder.chmod(0o755)
        self.environment = {**os.environ, "LC_ALL": "C"}
        self.servers: list[subprocess.Popen[bytes]] = []

    @classmethod
    def missing(cls) -> list[str]:
        """What of it is not installed."""
        path = f"{os.environ['PATH']}:/usr/sbin:{GRID_ENGINE}"
        return [program for program in cls.programs if shutil.which(program, path=path) is None]

    def start_server(self, *command: str | Path) -> None:
        """Start a server that stays in the foreground; its output is in the folder."""
        with open(self.folder / f"{Path(command[0]).name}-{len(self.servers)}.out", "wb") as out:
            self.servers.append(
                subprocess.Popen(
                    list(map(str, command)),
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    env=self.environment,
                    cwd=self.folder,
                    start_new_session=True,
                )
            )

    def call(self, *command: str | Path, may_fail: bool = False, timeout_s: float = 60) -> str:
        """Run a command of the scheduler's in the checkout, and give what it prints."""
        done = subprocess.run(
            list(map(str, command)),
            env=self.environment,
            cwd=self.checkout,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert may_fail or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def begin(self, *command: str, **variables: str) -> "subprocess.Popen[str]":
        """Start a command in the checkout; its output can be read at the end."""
        return subprocess.Popen(
            command,
            env={**self.environment, **variables},
            cwd=self.checkout,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def log(self) -> str:
        """All that servers and jobs have written, for a test that fails."""
        paths = [*self.folder.glob("*.out"), *self.folder.rglob("messages")]
        paths += [path for path in (self.checkout / "logs").rglob("*") if path.is_file()]
        return "\n".join(f"--- {path}\n{path.read_text(errors='replace')[-2000:]}" for path in paths)

    def stop(self) -> None:
        """End jobs and servers, and delete the folder."""
        try:
            self.end_jobs()
        finally:
            for server in reversed(self.servers):
                server.terminate()
                try:
                    server.wait(20)
                except subprocess.TimeoutExpired:
                    server.kill()
                    server.wait()
            shutil.rmtree(self.folder)
        wait_until("end of all processes", lambda: not self.processes(), 20)

    def processes(self) -> list[str]:
        """Processes of its servers and jobs, by the folder in their environment."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended
                if str(self.folder).encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_bytes().decode(errors="replace"))
        return found

    @abstractmethod
    def start(self) -> None:
        """Start the servers, and wait until they take jobs."""

    @abstractmethod
    def submit(self, script: str, *arguments: str, options: Sequence[str] = (), **variables: str) -> str:
        """Submit jobs/<script> as a user does; give its number."""

    @abstractmethod
    def array(self, tasks: int, first: int = 1) -> list[str]:
        """Options that make an array of a job, whose tasks are numbered from the first on."""

    @abstractmethod
    def after(self, job: str) -> list[str]:
        """Options for a job that waits for another."""

    @abstractmethod
    def name_of(self, job: str) -> str:
        """Name of a job in the scheduler's list."""

    @abstractmethod
    def statuses(self, job: str) -> list[int]:
        """Exit status of each task of a job that has ended; an empty list before that."""

    @abstractmethod
    def queue(self) -> str:
        """What the scheduler lists of jobs that wait or run; nothing if there are none."""

    @abstractmethod
    def named(self, name: str) -> list[str]:
        """Numbers of the jobs of a name that wait or run."""

    @abstractmethod
    def warn(self, job: str) -> None:
        """Make the scheduler warn a job."""

    @abstractmethod
    def hurry(self, job: str) -> None:
        """Start a requeued job again at once."""

    @abstractmethod
    def waits_again(self, job: str) -> bool:
        """Whether a job that has run is back in the queue."""

    @abstractmethod
    def preempt(self, job: str) -> None:
        """Make the scheduler take the node from a job."""

    @abstractmethod
    def cancel(self, job: str) -> None:
        """End a job."""

    @abstractmethod
    def end_jobs(self) -> None:
        """End all jobs, and wait until none is left."""

    def wait(self, job: str, timeout_s: float) -> list[int]:
        """Wait for the end of a job, and give the exit status of each task."""
        statuses: list[int] = []

        def ended() -> bool:
            self.hurry(job)
            statuses[:] = self.statuses(job)
            return statuses != []

        wait_until(f"end of job {job}", ended, timeout_s, 0.5)
        return statuses


class Slurm(Scheduler):
    """Slurm with two nodes and munge; a job of partition `urgent` drives out one of partition `all`."""

    suffix = engine = "slurm"
    programs = ("munged", "slurmctld", "slurmd", "sbatch")
    first_node = ("--nodelist=node1",)
    without_gpus = ("--gpus-per-node=0",)
    short_of_time = (
        "--time=3",
        "--nodelist=node2",
    )  # the warning of --signal is due after a minute, and comes within half a minute more
    ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY")

    def start(self) -> None:
        folder, host = self.folder, socket.gethostname()
        ports = free_ports(3)
        for name in ("state", "munge", "spool-node1", "spool-node2"):
            (folder / name).mkdir()
        (folder / "munge").chmod(0o711)
        cpus = NODE_SLOTS * 4
        key = folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        gpus = [f"gpu{number}" for number in range(8)]
        for gpu in gpus:
            (folder / gpu).touch()
        (folder / "gres.conf").write_text(f"NodeName=node[1-2] Name=gpu File={folder}/gpu[0-7]\n")
        (folder / "slurm.conf").write_text(
            f"""
            ClusterName=tests
            FirstJobId=501  # Grid Engine's are from 1 on: jobs/lib.sh makes a port of the number, and both run at once
            SlurmctldHost={host}(127.0.0.1)
            SlurmctldPort={ports[0]}
            SlurmUser={getpass.getuser()}
            AuthType=auth/munge
            AuthInfo=socket={folder}/munge/socket
            StateSaveLocation={folder}/state
            SlurmdSpoolDir={folder}/spool-%n
            SlurmctldPidFile={folder}/slurmctld.pid
            SlurmdPidFile={folder}/slurmd-%n.pid
            SlurmctldLogFile={folder}/slurmctld.log
            SlurmdLogFile={folder}/slurmd-%n.log
            ProctrackType=proctrack/linuxproc
            TaskPlugin=task/none
            MpiDefault=none
            SelectType=select/cons_tres
            SelectTypeParameters=CR_Core
            ReturnToService=2
            SlurmdParameters=config_overrides
            SchedulerParameters=bf_interval=1,sched_interval=1,preempt_youngest_first
            MinJobAge=3600
            PreemptType=preempt/partition_prio
            PreemptMode=REQUEUE
            GresTypes=gpu
            NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus} RealMemory=8000 Gres=gpu:8
            NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cpus} RealMemory=8000 Gres=gpu:8
            PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1
            PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=2
            """.replace(" " * 12, "")
        )
        self.environment["SLURM_CONF"] = str(folder / "slurm.conf")
        self.environment["PATH"] += ":/usr/sbin"
        munge = ["socket", "key-file", "log-file", "pid-file", "seed-file"]
        files = [f"--{name}={folder}/munge/{name.removesuffix('-file')}" for name in munge]
        self.start_server("/usr/sbin/munged", "--foreground", "--force", *files)
        wait_until("munged", (folder / "munge" / "socket").exists, START_S)
        self.start_server("/usr/sbin/slurmctld", "-D")
        for node in ("node1", "node2"):
            self.start_server("/usr/sbin/slurmd", "-D", "-N", node)
        idle = ["node1 idle", "node2 idle"]
        wait_until(
            "nodes of Slurm",
            lambda: self.call("sinfo", "-hN", "-pall", "-o", "%N %T", may_fail=True).split("\n")[:2] == idle,
            START_S,
        )

    def submit(self, script: str, *arguments: str, options: Sequence[str] = (), **variables: str) -> str:
        exported = ",".join(["ALL", *(f"{name}={value}" for name, value in variables.items())])
        path = f"jobs/{script}.{self.suffix}"
        return self.call("sbatch", "--parsable", f"--export={exported}", *options, path, *arguments).strip()

    def array(self, tasks: int, first: int = 1) -> list[str]:
        return [f"--array={first}-{first + tasks - 1}"]

    def after(self, job: str) -> list[str]:
        return [f"--dependency=afterok:{job}"]

    def show(self, job: str) -> list[dict[str, str]]:
        """What `scontrol` says of each task of a job."""
        lines = self.call("scontrol", "show", "job", "--oneliner", job).splitlines()
        return [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines]

    def name_of(self, job: str) -> str:
        return self.call("squeue", "-h", "-j", job, "-o", "%j").strip()

    def statuses(self, job: str) -> list[int]:
        tasks = self.show(job)
        if not all(task["JobState"] in self.ended for task in tasks):
            return []
        codes = [task["ExitCode"].split(":") for task in sorted(tasks, key=lambda task: int(task["JobId"]))]
        return [int(code) or (128 + int(number) if int(number) else 0) for code, number in codes]

    def queue(self) -> str:
        return self.call("squeue", "-h")

    def named(self, name: str) -> list[str]:
        return self.call("squeue", "-h", "-o", "%i", "--name", name).split()

    def warn(self, job: str) -> None:
        self.call("scancel", "--batch", "--signal=USR1", job)

    def hurry(self, job: str) -> None:
        (task, *_) = self.show(job)
        if task["Reason"] == "BeginTime" and datetime.fromisoformat(task["EligibleTime"]) > datetime.now() + SOON:
            # Slurm would wait for two minutes, for nodes that are slow to clean up.
            self.call("scontrol", "update", f"JobId={job}", "StartTime=now+2")

    def waits_again(self, job: str) -> bool:
        (task, *_) = self.show(job)
        return task["JobState"] == "PENDING" and task["Restarts"] != "0"

    def preempt(self, job: str) -> None:
        node = dict(re.findall(r"(\w+)=(\S*)", self.call("scontrol", "show", "node", "node1")))
        more = int(node["CPUTot"]) - int(node["CPUAlloc"]) + 1
        options = ["--partition=urgent", "--nodelist=node1", f"--cpus-per-task={more}", "--output=/dev/null"]
        self.call("sbatch", *options, "--wrap=true")

    def cancel(self, job: str) -> None:
        self.call("scancel", job)

    def end_jobs(self) -> None:
        self.call("scancel", "--user=root", may_fail=True)
        wait_until("end of Slurm's jobs", lambda: not self.queue(), 60)


class GridEngine(Scheduler):
    """Grid Engine with one host, a queue for jobs, and two queues that are the nodes of parallel environment `mpi`."""

    suffix = "sh"
    engine = "sge"
    programs = ("sge_qmaster", "sge_execd", "qconf", "qsub", "qacct")
    first_run = 1
    without_gpus = ("-l", "gpu=0")
    short_of_time = ("-l", "s_rt=00:00:10")
    is_one_host = True

    def __init__(self, checkout: Path) -> None:
        super().__init__(checkout)
        self.tasks: dict[str, int] = {}

    def start(self) -> None:
        folder, root = self.folder, self.folder / "root"
        for name in ("spool/qmaster/job_scripts", "spool/db", "spool/execd", "root/bin", "root/default/common"):
            (folder / name).mkdir(parents=True)
        (root / "util").symlink_to("/usr/share/gridengine/util")
        architecture = self.call("/usr/share/gridengine/util/arch").strip()
        for name in ("bin", "utilbin", "lib"):
            (root / name).mkdir(exist_ok=True)
            (root / name / architecture).symlink_to(GRID_ENGINE)
        common = root / "default" / "common"
        (common / "act_qmaster").write_text("localhost\n")
        (common / "host_aliases").write_text(f"localhost {socket.gethostname()}\n")
        user = getpass.getuser()
        bootstrap = Path("/usr/share/gridengine/default-bootstrap").read_text()
        bootstrap = bootstrap.replace("/var/spool/gridengine/spooldb", f"{folder}/spool/db")
        bootstrap = bootstrap.replace("/var/spool/gridengine", f"{folder}/spool").replace("sgeadmin", user)
        (common / "bootstrap").write_text(bootstrap)
        qmaster_port, execd_port = free_ports(2)
        self.environment |= {
            "SGE_ROOT": str(root),
            "SGE_CELL": "default",
            "SGE_QMASTER_PORT": str(qmaster_port),
            "SGE_EXECD_PORT": str(execd_port),
            "SGE_ND": "1",  # the servers stay in the foreground
            "PATH": f"{GRID_ENGINE}:{os.environ['PATH']}",
        }
        configuration = self.edited(
            Path("/usr/share/gridengine/default-configuration").read_text(),
            execd_spool_dir=f"{folder}/spool/execd",
            min_uid="0",
            min_gid="0",
            reporting_params="accounting=true reporting=false accounting_flush_time=00:00:00 joblog=false",
        )
        self.call("spoolinit", "berkeleydb", "libspoolb", folder / "spool" / "db", "init")
        self.call("spooldefaults", "configuration", self.file(configuration))
        self.call("spooldefaults", "complexes", root / "util" / "resources" / "centry")
        self.call("spooldefaults", "usersets", root / "util" / "resources" / "usersets")
        self.call("spooldefaults", "managers", user)
        self.start_server(GRID_ENGINE / "sge_qmaster")
        wait_until("sge_qmaster", lambda: self.call("qconf", "-sh", may_fail=True), START_S)
        self.call("qconf", "-as", "localhost")
        self.start_server(GRID_ENGINE / "sge_execd")
        wait_until("sge_execd", lambda: "localhost" in self.call("qconf", "-sel", may_fail=True), START_S)
        self.configure()
        queues = {f"{queue}@localhost" for queue in ("all.q", "node1.q", "node2.q")}
        wait_until("queues", lambda: queues <= set(self.call("qselect", may_fail=True).split()), START_S)

    def configure(self) -> None:
        """Make scheduling quick, the host have GPUs, and two queues and two parallel environments."""
        schedule = self.call("qconf", "-ssconf")
        at_once = {"schedule_interval": "0:0:1", "flush_submit_sec": "1", "flush_finish_sec": "1"}
        self.call("qconf", "-Msconf", self.file(self.edited(schedule, **at_once, job_load_adjustments="NONE")))
        complexes = self.call("qconf", "-sc")
        self.call("qconf", "-Mc", self.file(complexes + "gpu gpu INT <= YES YES 0 0\n"))
        self.call("qconf", "-aattr", "exechost", "complex_values", f"gpu={HOST_SLOTS}", "localhost")
        settings = "slots 999\nuser_lists NONE\nxuser_lists NONE\nstart_proc_args NONE\nstop_proc_args NONE\n"
        settings += "control_slaves TRUE\njob_is_first_task FALSE\nurgency_slots min\naccounting_summary FALSE\n"
        settings += "qsort_args NONE\n"
        for name, rule in (("smp", "$pe_slots"), ("mpi", "$fill_up")):
            self.call("qconf", "-Ap", self.file(f"pe_name {name}\nallocation_rule {rule}\n{settings}"))
        template = self.call("qconf", "-sq")
        here = {"hostlist": "localhost", "shell": "/bin/bash", "load_thresholds": "NONE"}
        jobs = {"slots": str(HOST_SLOTS), "pe_list": "smp"}
        node = {"slots": "1", "pe_list": "mpi", "qtype": "NONE"}
        for name, changes in {"all.q": jobs, "node1.q": node, "node2.q": node}.items():
            self.call("qconf", "-Aq", self.file(self.edited(template, qname=name, **here, **changes)))

    def file(self, text: str) -> Path:
        """Write what qconf wants to read from a file."""
        path = self.folder / "qconf.txt"
        path.write_text(text)
        return path

    @staticmethod
    def edited(text: str, **changes: str) -> str:
        """Change settings in what `qconf -s...` prints."""
        for name, value in changes.items():
            text, found = re.subn(rf"^{name}\s.*$", f"{name} {value}", text, flags=re.MULTILINE)
            assert found == 1, f"{name} in\n{text}"
        return text

    def submit(self, script: str, *arguments: str, options: Sequence[str] = (), **variables: str) -> str:
        exported = [word for name, value in variables.items() for word in ("-v", f"{name}={value}")]
        path = f"jobs/{script}.{self.suffix}"
        job, _, tasks = self.call("qsub", "-terse", *exported, *options, path, *arguments).strip().partition(".")
        self.tasks[job] = int(tasks.split("-")[1].split(":")[0]) if tasks else 1
        return job

    def array(self, tasks: int, first: int = 1) -> list[str]:
        return ["-t", f"{first}-{first + tasks - 1}"]

    def after(self, job: str) -> list[str]:
        return ["-hold_jid", job]

    def name_of(self, job: str) -> str:
        return re.findall(r"^job_name:\s+(\S+)", self.call("qstat", "-j", job), flags=re.MULTILINE)[0]

    def statuses(self, job: str) -> list[int]:
        if re.search(rf"^\s*{job}\s", self.call("qstat", "-u", "*"), flags=re.MULTILINE):
            return []
        records = self.call("qacct", "-j", job, may_fail=True).split("=" * 62)[1:]
        last: dict[str, int] = {}  # a requeued job has a record for each time that it ran
        for record in records:
            fields = dict(line.split(maxsplit=1) for line in record.strip().splitlines() if len(line.split()) > 1)
            last[fields["taskid"]] = int(fields["exit_status"].split()[0])
        if len(last) < self.tasks[job]:
            return []  # not written yet
        return [last[task] for task in sorted(last, key=lambda task: int(task) if task.isdigit() else 0)]

    def queue(self) -> str:
        return self.call("qstat", "-u", "*").strip()

    def named(self, name: str) -> list[str]:
        lines = self.call("qstat", "-u", "*", "-r").splitlines()
        titles = [number for number, line in enumerate(lines) if line.strip() == f"Full jobname:     {name}"]
        return [lines[number - 1].split()[0] for number in titles]

    def warn(self, job: str) -> None:
        self.call("qmod", "-sj", job)  # as a queue does with the jobs of its subordinates

    def hurry(self, job: str) -> None:
        """Nothing to do: it starts at the next round, which comes every second."""

    def waits_again(self, job: str) -> bool:
        return re.search(rf"^\s*{job}\s.*\sRq\s", self.call("qstat", "-u", "*"), flags=re.MULTILINE) is not None

    def preempt(self, job: str) -> None:
        self.warn(job)

    def cancel(self, job: str) -> None:
        self.call("qdel", job)

    def end_jobs(self) -> None:
        self.call("qdel", "-u", "*", may_fail=True)
        wait_until("end of Grid Engine's jobs", lambda: not self.queue(), 90)
        self.call("qconf", "-ke", "localhost", may_fail=True)
        self.call("qconf", "-km", may_fail=True)

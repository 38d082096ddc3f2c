"""A SLURM of one node on loopback, for as long as a command runs (needs root).

Debian's packages `slurm-wlm` and `munge` are all it takes:

    python tests/slurm_node.py squeue
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
PARTITION = "test"
CPUS = 4

_CONFIGURATION = """\
ClusterName=geoseg
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
# More processors than the machine may have: two jobs at a time.
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerParameters=sched_interval=2,batch_sched_delay=0
KillWait=10
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=64000 State=UNKNOWN
PartitionName={partition} Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class NotHere(Exception):
    """SLURM is missing, or cannot be started here; says why."""


@contextmanager
def slurm_node() -> Iterator[dict[str, str]]:
    """Run a node until the block ends.

    Yields:
        The environment in which `sbatch` and its friends find the node.

    Raises:
        NotHere: It cannot be started.
    """
    programs = {name: _find(name) for name in PROGRAMS}
    if os.geteuid() != 0:
        raise NotHere("only root can start it")
    with ExitStack() as ending:
        # Not below a test's folder: munge wants all parents closed to others.
        name = ending.enter_context(tempfile.TemporaryDirectory(prefix="slurm-"))
        folder = Path(name)
        folder.chmod(0o755)
        configuration = folder / "slurm.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                folder=folder,
                host=socket.gethostname().split(".")[0],
                ports=_free_ports(2),
                cpus=CPUS,
                partition=PARTITION,
            )
        )
        for part in ("state", "spool"):
            (folder / part).mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        options = {
            "key-file": key,
            "socket": folder / "munge.socket",
            "pid-file": folder / "munge.pid",
            "log-file": folder / "munge.log",
            "seed-file": folder / "munge.seed",
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        environment = {**os.environ, "SLURM_CONF": str(configuration)}
        _start(ending, folder, [programs["munged"], "--foreground", *arguments])
        _wait(folder, "munge", (folder / "munge.socket").exists)
        for name in ("slurmctld", "slurmd"):
            command = [programs[name], "-D", "-f", str(configuration)]
            _start(ending, folder, command)
        # Jobs first, daemons after them.
        ending.callback(_end_jobs, environment)
        _wait(folder, "slurmd", lambda: _is_idle(environment))
        yield environment


def _find(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise NotHere(f"there is no {name}")
    return found


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _start(ending: ExitStack, folder: Path, command: list[str]) -> None:
    log = ending.enter_context((folder / f"{Path(command[0]).name}.out").open("wb"))
    process = subprocess.Popen(command, stdout=log, stderr=log)
    ending.callback(process.wait)
    ending.callback(process.kill)


def _wait(folder: Path, what: str, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not ready():
        if time.monotonic() > deadline:
            logs = [log.read_text(errors="replace") for log in folder.glob("*.out")]
            raise NotHere(f"{what} does not start: {' '.join(logs)[-500:]}")
        time.sleep(0.1)


def _is_idle(environment: dict[str, str]) -> bool:
    state = _output(["sinfo", "--noheader", "--format=%T"], environment)
    return state.strip() == "idle"


def _end_jobs(environment: dict[str, str]) -> None:
    for cancel in (["scancel", "--signal=KILL", "--full"], ["scancel"]):
        subprocess.run([*cancel, "--user=root"], env=environment, check=False)
    deadline = time.monotonic() + 20
    while queued(environment) and time.monotonic() < deadline:
        time.sleep(0.1)


def queued(environment: dict[str, str]) -> list[str]:
    """Return the ids of jobs that wait or run."""
    return _output(["squeue", "--noheader", "--format=%i"], environment).split()


def _output(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False
    ).stdout


def main() -> int:
    """Run a command on a node of its own."""
    # So that all that was started ends, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with slurm_node() as environment:
        return subprocess.run(sys.argv[1:], env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

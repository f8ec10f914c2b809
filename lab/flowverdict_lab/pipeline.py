"""Runs NATS and the services as processes, as a cluster would."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path

from flowverdict_lab.free_port import free_port
from flowverdict_runtime.ports import PORTS

__all__ = ["Pipeline", "PipelineError", "start_process", "stop_process"]

_READY_SECONDS = 60
_STOP_SECONDS = 15


class PipelineError(RuntimeError):
    """A service did not start, or exited; the message has the end of its log."""


def start_process(
    argv: list[str], log: Path, environ: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a process that gets SIGTERM when this one ends, for whatever reason.

    It has its own session, so that Ctrl+C in the terminal reaches only this process.
    """
    if shutil.which("setpriv"):
        argv = ["setpriv", "--pdeathsig", "TERM", "--", *argv]
    with log.open("ab") as out:
        return subprocess.Popen(
            argv,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop_process(process: subprocess.Popen[bytes], patience: float = _STOP_SECONDS) -> int:
    """Send SIGTERM, then SIGKILL if it does not exit; returns its status."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


class Pipeline:
    """NATS, collector, enricher, exporter and rca; a context manager.

    Args:
        folder: for logs, the inventory and NATS' data.
        inventory: names and addresses for the enricher, as JSON.
        collector: False for a replay, where the raw messages come from a recording.
        namespaces: inode numbers of the network namespaces to count; all if there are none.
        environ: settings for the services, in addition to their addresses.
        nats_arguments: for the NATS server, in addition to its address.
    """

    def __init__(
        self,
        folder: Path,
        inventory: str,
        *,
        collector: bool = True,
        namespaces: Iterable[int] = (),
        environ: Mapping[str, str] | None = None,
        nats_arguments: tuple[str, ...] = (),
    ) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.services = (*(("collector",) if collector else ()), "enricher", "exporter", "rca")
        self.ports = {name: free_port() for name in self.services}
        self.ports["exporter"] = free_port(PORTS["exporter"])
        self.nats_port = free_port()
        self._environ = {
            "FLOWVERDICT_NATS_URL": self.nats_url,
            "FLOWVERDICT_NODE": "lab",
            "FLOWVERDICT_NAMES": "inventory",
            "FLOWVERDICT_INVENTORY": str(folder / "inventory.json"),
            "FLOWVERDICT_NETWORK_NAMESPACES": ",".join(map(str, namespaces)),
            **(environ or {}),
        }
        self._inventory = inventory
        self._nats_arguments = nats_arguments
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def nats_url(self) -> str:
        """NATS' address."""
        return f"nats://127.0.0.1:{self.nats_port}"

    def url(self, service: str, path: str) -> str:
        """A URL on a service's HTTP server."""
        return f"http://127.0.0.1:{self.ports[service]}{path}"

    def __enter__(self) -> "Pipeline":
        self.logs.mkdir(parents=True, exist_ok=True)
        (self.folder / "inventory.json").write_text(self._inventory)
        try:
            self.start_nats()
            for service in self.services:
                self.start(service)
            self.wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start_nats(self) -> None:
        """Start the NATS server on its port, with its previous data."""
        server = Path(sys.executable).with_name("nats-server")
        argv = [str(server), "-js", "-a", "127.0.0.1", "-p", str(self.nats_port)]
        argv += ["-sd", str(self.folder / "nats"), *self._nats_arguments]
        self._processes["nats"] = start_process(argv, self.logs / "nats.log")

    def start(self, service: str, environ: Mapping[str, str] | None = None) -> None:
        """Start a service, with settings in addition to the common ones."""
        environ = {
            **self._environ,
            "FLOWVERDICT_LISTEN": f"127.0.0.1:{self.ports[service]}",
            **(environ or {}),
        }
        argv = [sys.executable, "-m", f"flowverdict_{service}"]
        self._processes[service] = start_process(argv, self.logs / f"{service}.log", environ)

    def stop(self, name: str) -> int:
        """Stop a service, or `nats`, as a cluster would; returns its exit status."""
        return stop_process(self._processes.pop(name))

    def kill(self, name: str) -> None:
        """Kill a service, or `nats`, with SIGKILL."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def wait_ready(self, seconds: float = _READY_SECONDS) -> None:
        """Wait until every service reports that it is ready.

        Raises:
            PipelineError: if one exits instead, or is not ready in time.
        """
        deadline = time.monotonic() + seconds
        for service in self.services:
            while (why := self._not_ready(service)) is not None:
                if self._processes[service].poll() is not None:
                    raise PipelineError(f"{service} exited:\n{self.log_tail(service)}")
                if time.monotonic() > deadline:
                    raise PipelineError(f"{service} is not ready after {seconds:g} s: {why}")
                time.sleep(0.05)

    def ready(self, service: str) -> bool:
        """Whether a service reports that it is ready."""
        return self._not_ready(service) is None

    def pid(self, name: str) -> int:
        """Process id of a service, or of `nats`."""
        return self._processes[name].pid

    def check_running(self) -> None:
        """Raises PipelineError if a process has exited by itself."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                raise PipelineError(f"{name} exited:\n{self.log_tail(name)}")

    def log_tail(self, name: str) -> str:
        """The last lines of a log."""
        log = self.logs / f"{name}.log"
        return "\n".join(log.read_text(errors="replace").splitlines()[-5:]) if log.exists() else ""

    def metric(self, service: str, name: str) -> float:
        """The sum of a metric's series, as served by the service; 0 if there are none."""
        lines = self.page(service, "/metrics").splitlines()
        values = [
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.split("{")[0].split(" ")[0] == name
        ]
        return sum(values)

    def page(self, service: str, path: str) -> str:
        """The body of a response from a service's HTTP server."""
        with urllib.request.urlopen(self.url(service, path), timeout=10) as answer:  # noqa: S310 # our own
            text: str = answer.read().decode()
            return text

    def close(self) -> None:
        """Stop the services, then NATS, and remove its data."""
        for name in [*reversed([n for n in self._processes if n != "nats"]), "nats"]:
            if name in self._processes:
                stop_process(self._processes.pop(name))
        shutil.rmtree(self.folder / "nats", ignore_errors=True)

    def _not_ready(self, service: str) -> str | None:
        try:
            with urllib.request.urlopen(self.url(service, "/readyz"), timeout=2):  # noqa: S310 # our own
                return None
        except urllib.error.HTTPError as error:
            with error:
                return str(json.load(error)["waiting"])
        except OSError as error:
            return str(error)

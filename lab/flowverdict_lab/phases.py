"""Runs the phases before, during and after a fault, and collects the verdicts."""

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import nats
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from flowverdict_contracts.subjects import SUBJECT_VERDICTS
from flowverdict_contracts.timestamps import to_rfc3339
from flowverdict_contracts.verdicts import Verdict, most_telling
from flowverdict_contracts.verdicts import decode as decode_verdict
from flowverdict_lab import recording
from flowverdict_lab.cluster import Cluster
from flowverdict_lab.faults import Fault
from flowverdict_lab.network import Network
from flowverdict_lab.pipeline import Pipeline, PipelineError, start_process
from flowverdict_lab.recording import About, Expected

__all__ = [
    "METRICS_FILE",
    "PHASES",
    "REPORT_FILE",
    "Outcome",
    "Run",
    "listening",
    "run_live",
    "run_replay",
    "until_judged",
]

PHASES = ("before", "during", "after")
METRICS_FILE = "metrics.prom"
REPORT_FILE = "report.html"
_JUDGED_SECONDS = 60
_PANE_SECONDS = 2
_RESOLVED_SECONDS = 15
_FLOW_REQUESTS = 120
"""Requests per second in the whole lab, split among its flows: two cores handle them easily."""

Tell = Callable[[str, float], None]
"""Called with the current step and the seconds of traffic so far."""


@dataclass(frozen=True, slots=True)
class Run:
    """What is to be tried.

    Attributes:
        cluster: on which pods and nodes.
        fault: what breaks in the second phase.
        usual: what is broken from beginning to end.
        seconds: the length of each phase.
    """

    cluster: Cluster
    fault: Fault
    usual: Fault | None
    seconds: float


@dataclass(slots=True)
class Outcome:
    """The result of a run.

    Attributes:
        verdicts: all verdicts, in order.
        phases: start and end of each, by name, in UTC nanoseconds.
        fault: in words.
        expected: what a right verdict may name.
        metrics_url: where the exporter served its metrics.
        windows: how many were judged; flows failed in `failing_windows` of them.
    """

    fault: str
    expected: tuple[Expected, ...]
    verdicts: list[Verdict] = field(default_factory=list)
    phases: dict[str, tuple[int, int]] = field(default_factory=dict)
    metrics_url: str = ""
    windows: int = 0
    failing_windows: int = 0

    @property
    def verdict(self) -> Verdict | None:
        """The most telling verdict on the incident that shows the fault best: the report's."""
        _, removed_ns = self.phases.get("during", (0, 0))
        during_fault = [v for v in self.verdicts if v.window.end <= to_rfc3339(removed_ns)]
        found = most_telling(during_fault) or most_telling(self.verdicts)
        if found is None:
            return None
        return most_telling(v for v in self.verdicts if v.incident_id == found.incident_id)

    @property
    def also(self) -> list[Verdict]:
        """Verdicts on other incidents in the same window."""
        return [
            each
            for each in self.verdicts
            if self.verdict and each.window == self.verdict.window and each is not self.verdict
        ]

    def in_words(self) -> str:
        """What was seen of failing flows."""
        if not self.failing_windows:
            return f"no flow failed in any of {self.windows} windows"
        return (
            f"flows failed in {self.failing_windows} of {self.windows} windows, "
            "but nothing was blamed for them long enough"
        )

    def wrong(self) -> str | None:
        """Why the verdict is not right; None if it is."""
        if not self.expected:
            return f"there was no fault, yet: {self.verdict.summary}" if self.verdict else None
        names = " or ".join(str(each) for each in self.expected)
        if self.verdict is None:
            why = "; losses below FLOWVERDICT_FAIL_RATIO take one to two minutes to show"
            if self.failing_windows:
                why = f", since {self.in_words()}"
            return f"there is no verdict, but it should have named {names}{why}"
        if not self.verdict.causes:
            return f"the verdict names no cause, but it should have named {names}"
        first = self.verdict.causes[0]
        if not any((first.kind, first.name) == (each.kind, each.name) for each in self.expected):
            return f"the verdict names {first}, but it should have named {names}"
        return None


@contextlib.asynccontextmanager
async def listening(pipeline: Pipeline, outcome: Outcome) -> AsyncIterator[JetStreamContext]:
    """A connection to the pipeline's NATS; every verdict is added to `outcome`."""

    async def receive(message: Msg) -> None:
        outcome.verdicts.append(decode_verdict(message.data))

    client = await nats.connect(pipeline.nats_url)
    try:
        await client.subscribe(SUBJECT_VERDICTS, cb=receive)
        await client.flush()
        yield client.jetstream(timeout=10)
        await client.flush()
    finally:
        await client.close()


async def run_live(run: Run, folder: Path, record: Path, tell: Tell) -> Outcome:
    """Build the lab, run the pipeline on it, inject the fault, and collect verdicts.

    Raises:
        LabError, PipelineError: if the lab or a service does not start or ends early.
    """
    cluster, fault, seconds = run.cluster, run.fault, run.seconds
    expected = tuple(Expected(each.kind, each.name) for each in fault.expected)
    outcome = Outcome(fault.words, expected)
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    tell("building the lab", 0)
    with Network(cluster, logs) as network:
        tell("starting the services", 0)
        with Pipeline(folder, cluster.inventory(), namespaces=network.namespaces()) as pipeline:
            outcome.metrics_url = pipeline.url("exporter", "/metrics")
            tell(f"live: metrics at {outcome.metrics_url}", 0)
            tell(f"live: {_command('flowverdict-tail')} --nats {pipeline.nats_url}", 0)
            async with listening(pipeline, outcome) as jetstream:
                network.start_traffic(max(1.0, min(10.0, _FLOW_REQUESTS / len(cluster.calls))))
                if run.usual is not None:
                    run.usual.inject(network)
                began = time.monotonic()
                for phase in PHASES:
                    if phase == "during":
                        fault.inject(network)
                    elif phase == "after":
                        fault.remove(network)
                    started = time.time_ns()
                    until = began + seconds * (PHASES.index(phase) + 1)
                    while time.monotonic() < until:
                        tell(_phase_words(phase, fault, outcome), time.monotonic() - began)
                        pipeline.check_running()
                        await asyncio.sleep(min(0.25, max(0.0, until - time.monotonic())))
                    outcome.phases[phase] = (started, time.time_ns())
                tell("waiting for the last window to be judged", 3 * seconds)
                await until_judged(pipeline, outcome.phases["after"][1])
                _count_windows(pipeline, outcome)
                tell("waiting for the incident to resolve", 3 * seconds)
                await _wait_until(lambda: _is_resolved(outcome), _RESOLVED_SECONDS)
                about = About(
                    fault=outcome.fault,
                    expected=outcome.expected,
                    inventory=cluster.inventory(),
                    phases=outcome.phases,
                )
                tell("saving the recording", 3 * seconds)
                await recording.save(jetstream, about, record)
                await _write_report(pipeline, outcome, folder)
            (folder / METRICS_FILE).write_text(pipeline.page("exporter", "/metrics"))
    return outcome


async def run_replay(path: Path, folder: Path, tell: Tell) -> Outcome:
    """Send a recording through the same services.

    Raises:
        RecordingError: if the file is not a recording.
        PipelineError: if a service does not start or ends early.
    """
    about, messages = recording.read(path)
    outcome = Outcome(about.fault, about.expected, phases=about.phases)
    tell("starting the services", 0)
    with Pipeline(folder, about.inventory, collector=False) as pipeline:
        outcome.metrics_url = pipeline.url("exporter", "/metrics")
        async with listening(pipeline, outcome) as jetstream:
            tell("replaying", 0)
            end_ns = await recording.replay(jetstream, messages)
            tell("waiting for the last window to be judged", 0)
            await until_judged(pipeline, end_ns)
            _count_windows(pipeline, outcome)
            await _write_report(pipeline, outcome, folder)
        (folder / METRICS_FILE).write_text(pipeline.page("exporter", "/metrics"))
    return outcome


def _count_windows(pipeline: Pipeline, outcome: Outcome) -> None:
    outcome.windows = int(pipeline.metric("rca", "flowverdict_rca_windows_total"))
    outcome.failing_windows = int(pipeline.metric("rca", "flowverdict_rca_failing_windows_total"))


async def _write_report(pipeline: Pipeline, outcome: Outcome, folder: Path) -> None:
    """Write the incident report with the command that an operator would use."""
    if outcome.verdict is None:
        return
    argv = [sys.executable, "-m", "flowverdict_rca", "report", "--nats", pipeline.nats_url]
    argv += ["--incident", outcome.verdict.incident_id, "--out", str(folder / REPORT_FILE)]
    log = pipeline.logs / "report.log"
    process = start_process(argv, log)
    status = await asyncio.to_thread(process.wait)
    if status:
        raise PipelineError(f"the report was not written:\n{pipeline.log_tail('report')}")


def _command(name: str) -> str:
    """The path, from the current directory if possible, of a command in this environment."""
    path = Path(sys.executable).with_name(name)
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _phase_words(phase: str, fault: Fault, outcome: Outcome) -> str:
    words = {
        "before": "before: no fault",
        "during": f"during: {fault.words}",
        "after": "after: fault removed",
    }
    verdict = outcome.verdict
    if verdict is None:
        return words[phase]
    last = outcome.verdicts[-1]
    blamed = f" {last.causes[0]}" if last.causes else ""
    return f"{words[phase]} — {last.status}{blamed}"


def _is_resolved(outcome: Outcome) -> bool:
    opened = {verdict.incident_id for verdict in outcome.verdicts}
    resolved = {v.incident_id for v in outcome.verdicts if v.status == "resolved"}
    return opened == resolved


async def until_judged(pipeline: Pipeline, end_ns: int) -> None:
    """Wait until the RCA worker has judged all windows that end by `end_ns`."""

    def judged() -> bool:
        pipeline.check_running()
        until = pipeline.metric("rca", "flowverdict_rca_watermark_timestamp_seconds")
        return until > end_ns / 1e9 - 2 * _PANE_SECONDS

    if not await _wait_until(judged, _JUDGED_SECONDS):
        raise PipelineError(f"the windows were not judged in {_JUDGED_SECONDS} s; see logs/rca.log")


async def _wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True

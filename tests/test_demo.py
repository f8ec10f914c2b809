"""The demo as a user runs it: right verdicts, and nothing left behind."""

import html
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowverdict_lab import demo
from flowverdict_lab.cluster import Pod, make_cluster
from flowverdict_lab.faults import FaultError, parse_fault
from flowverdict_lab.live_support import why_not_live
from flowverdict_lab.network import Network

DEMO = str(Path(sys.executable).with_name("flowverdict-demo"))
REASON = why_not_live()
live = pytest.mark.skipif(REASON is not None, reason=f"no live run: {REASON}")


def run(out: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [DEMO, "--out", str(out), *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, **environ},
        check=False,
    )


def processes_of(out: Path) -> list[str]:
    """Command lines of what a demo with this output folder started, pods and nodes included."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode().split("\0")
            environ = (folder / "environ").read_bytes().decode(errors="replace")
        except (OSError, ProcessLookupError):
            continue
        if f"FLOWVERDICT_TEST_MARK={out}" in environ:
            found.append(" ".join(words))
    return found


def wait_for(condition: object, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.1)


def host_network() -> tuple[str, str, str]:
    """Interfaces, named namespaces and nftables rules of this machine itself."""
    commands = (["ip", "-br", "link"], ["ip", "netns", "list"], ["nft", "list", "ruleset"])
    return tuple(subprocess.check_output(command, text=True) for command in commands)  # type: ignore[return-value]


def said(folder: Path) -> list[dict[str, Any]]:
    """Every verdict of a run."""
    return [json.loads(line) for line in (folder / "verdicts.jsonl").read_text().splitlines()]


@live
@pytest.mark.parametrize(
    ("arguments", "kind", "name"),
    [
        (["--target", "pod-c"], "pod", "default/pod-c"),
        (["--fault", "node-loss", "--target", "worker1"], "node", "worker1"),
        (["--fault", "link-loss"], "link", "default/pod-b <-> default/pod-c"),
    ],
)
def test_the_verdict_names_what_was_broken_and_nothing_is_left_behind(
    tmp_path: Path, arguments: list[str], kind: str, name: str
) -> None:
    before = host_network()
    done = run(tmp_path, *arguments, "--seconds", "10", FLOWVERDICT_TEST_MARK=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert (verdict["causes"][0]["kind"], verdict["causes"][0]["name"]) == (kind, name)
    assert verdict["summary"].split()[-1] in done.stdout
    lines = (tmp_path / "verdicts.jsonl").read_text().splitlines()
    statuses = [json.loads(line)["status"] for line in lines]
    assert statuses[0] == "opened"
    assert statuses[-1] == "resolved"
    assert (tmp_path / "recording.jsonl.gz").stat().st_size < 1_000_000
    assert {path.name for path in (tmp_path / "logs").iterdir()} >= {
        f"{service}.log" for service in ("nats", "collector", "enricher", "exporter", "rca")
    }
    assert "tcp_retransmissions_total" in (tmp_path / "metrics.prom").read_text()
    report = (tmp_path / "report.html").read_text()
    assert html.escape(name, quote=False) in report
    assert "<caption>after</caption>" in report
    assert str(tmp_path / "report.html") in done.stdout
    assert processes_of(tmp_path) == []
    assert host_network() == before


@live
@pytest.mark.parametrize(
    ("fault", "direction", "conditions"),
    [
        ("send-loss", "sending", {"HIGH_RETRANSMISSION_RATIO"}),
        ("receive-loss", "receiving", {"HIGH_RETRANSMISSION_RATIO"}),
        ("mtu-blackhole", "both", {"HIGH_RETRANSMISSION_RATIO"}),
        ("refused-port", "receiving", {"CONNECT_FAILURE"}),
        ("blackholed-port", "receiving", {"CONNECT_FAILURE"}),
    ],
)
def test_each_kind_of_fault_has_its_verdict(
    tmp_path: Path, fault: str, direction: str, conditions: set[str]
) -> None:
    done = run(tmp_path, "--fault", fault, "--seconds", "10")
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert verdict["causes"][0]["direction"] == direction
    assert conditions <= set(verdict["conditions"])
    # Once connections open anew, it shows that only large packets are lost.
    small = [each for each in said(tmp_path) if "MTU_MISMATCH" in each["conditions"]]
    assert bool(small) == (fault == "mtu-blackhole")
    rules = {(*each["antecedents"],) for verdict in small for each in verdict["rules"]}
    assert not small or ("HIGH_RETRANSMISSION_RATIO", "MTU_MISMATCH") in rules


@live
@pytest.mark.parametrize(
    ("fault", "calls", "conditions"),
    [
        ("slow-server", "mesh", {"SLOW_ANSWERS"}),
        ("full-receiver", "mesh", {"ZERO_WINDOW"}),
        ("pod-delay", "mesh", {"HIGH_LATENCY"}),
        ("pod-jitter", "mesh", {"HIGH_LATENCY", "HIGH_JITTER"}),
        ("bandwidth-limit", "mesh", set()),  # its queue is long, or full
        ("resetting-server", "layers", {"RESET"}),
    ],
)
def test_what_only_long_windows_show_has_its_verdict(
    tmp_path: Path, fault: str, calls: str, conditions: set[str]
) -> None:
    short = {"FLOWVERDICT_PANE_SECONDS": "1", "FLOWVERDICT_WINDOW_PANES": "2"}  # 6 s for long ones
    target = ("--target", "pod-b", "--pods", "6", "--calls", calls)
    done = run(tmp_path, "--fault", fault, "--seconds", "36", *target, **short)
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert conditions <= set(verdict["conditions"])


@live
def test_two_faults_at_once_are_two_incidents(tmp_path: Path) -> None:
    done = run(tmp_path, "--target", "pod-b,pod-e", "--pods", "6", "--seconds", "12")
    assert done.returncode == 0, done.stdout + done.stderr
    opened = {each["causes"][0]["name"] for each in said(tmp_path) if each["status"] == "opened"}
    assert opened == {"default/pod-b", "default/pod-e"}


@live
def test_a_hub_that_has_always_lost_some_is_not_blamed_for_a_fault_elsewhere(
    tmp_path: Path,
) -> None:
    graph = ("--calls", "layers", "--hub-loss", "2", "--pods", "9", "--nodes", "3")
    done = run(tmp_path, *graph, "--target", "pod-d", "--seconds", "12")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {each["causes"][0]["name"] for each in said(tmp_path)} == {"default/pod-d"}


def test_a_server_fault_needs_a_server() -> None:
    cluster = make_cluster(6, 2, "layers")
    with pytest.raises(FaultError, match="nobody calls pod-a; choose from pod-b, pod-c, pod-e"):
        parse_fault("slow-server", "pod-a", 0, cluster)
    with pytest.raises(FaultError, match="no flow would be affected"):
        parse_fault("link-loss", "pod-a,pod-c", 20, cluster)


@live
def test_without_a_fault_there_is_no_verdict(tmp_path: Path) -> None:
    done = run(tmp_path, "--fault", "none", "--seconds", "7")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "verdict.json").read_text()) is None
    assert "No verdict" in done.stdout


CONNECT = """
import socket, sys, time
began = time.monotonic()
socket.create_connection((sys.argv[1], 8080), 10).close()
print(time.monotonic() - began)
"""


@live
def test_a_delayed_pod_is_reached_a_tenth_of_a_second_later_until_the_delay_is_removed(
    tmp_path: Path,
) -> None:
    cluster = make_cluster(4, 2)
    fault = parse_fault("pod-delay", "pod-a", 0, cluster)

    def seconds_from(src: str, dst: Pod) -> float:
        argv = [sys.executable, "-c", CONNECT, dst.ipv4]
        return float(network.inside(src, argv))

    pod_a, *_, pod_d = cluster.pods
    with Network(cluster, tmp_path) as network:
        wait_for(lambda: seconds_from("pod-d", pod_a) < 0.1)
        fault.inject(network)
        assert seconds_from("pod-d", pod_a) > 0.1
        assert seconds_from("pod-a", pod_d) > 0.1
        wait_for(lambda: seconds_from("pod-d", cluster.pods[1]) < 0.1)
        fault.remove(network)
        wait_for(lambda: seconds_from("pod-d", pod_a) < 0.1)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A demo in the middle of its fault."""
    process = subprocess.Popen(
        [DEMO, "--out", str(tmp_path), "--seconds", "6"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "FLOWVERDICT_TEST_MARK": str(tmp_path), "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("during"):
            break
    else:
        pytest.fail(f"the demo ended before its fault:\n{said}")
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


@live
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_demo_that_is_interrupted_or_killed_leaves_nothing_behind(
    tmp_path: Path, running: subprocess.Popen[str], number: signal.Signals
) -> None:
    assert processes_of(tmp_path)
    running.send_signal(number)
    status = running.wait(60)
    assert status == (-9 if number == signal.SIGKILL else 130)
    wait_for(lambda: processes_of(tmp_path) == [])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "default/pod-b"], "20% packet loss on pod-b"),
        (["--loss", "0.5"], "0.5% packet loss on pod-a"),
        (["--loss", "7.5%"], "7.5% packet loss on pod-a"),
    ],
)
def test_a_fault_can_be_written_as_people_write_it(arguments: list[str], words: str) -> None:
    parsed = demo._parser().parse_args(arguments)
    cluster = make_cluster(4, 2)
    assert parse_fault(parsed.fault, parsed.target, parsed.loss, cluster).words == words


def test_a_replay_says_which_options_it_ignores(tmp_path: Path) -> None:
    done = run(tmp_path, "--replay", str(tmp_path / "x"), "--loss", "5", "--pods", "6")
    assert done.returncode == 3
    assert "--replay shows what was recorded; ignored: --loss, --pods" in done.stderr


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    others = [tmp_path / name for name in ("logs/app.log", "nats/jetstream.conf", "verdict.json")]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    done = run(tmp_path, FLOWVERDICT_NOT_LIVE="this is a test")
    assert done.returncode == 3
    assert f"{tmp_path} holds files that are not from a demo" in done.stderr
    assert {path.read_text() for path in others} == {"mine"}
    assert len(list(tmp_path.rglob("*"))) == 5


def test_without_ebpf_it_says_so_in_one_line_and_replays_a_real_run(tmp_path: Path) -> None:
    done = run(tmp_path, FLOWVERDICT_NOT_LIVE="this is a test")
    assert done.returncode == 0, done.stdout + done.stderr
    first = done.stdout.splitlines()[0]
    assert first == "Cannot run live: this is a test. Replaying the recording of a real run."
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert verdict["causes"][0]["name"] == "default/pod-a"
    assert not (tmp_path / "logs" / "collector.log").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "pod-x"], "there is no pod-x"),
        (["--fault", "node-loss", "--target", "pod-a"], "node-loss needs nodes"),
        (["--fault", "link-loss", "--target", "pod-a"], "link-loss needs two"),
        (["--fault", "link-loss", "--target", "pod-a,worker0"], "link-loss needs two"),
        (["--fault", "none", "--target", "pod-a"], "no --target"),
        (["--pods", "2"], "every flow would fail"),
        (["--pods", "2"], "take three pods at least"),
        (["--loss", "0"], "0 is not between 0.1 and 100 percent"),
        (["--loss", "101%"], "101% is not between 0.1 and 100 percent"),
        (["--loss", "much"], "invalid percentage value: 'much'"),
        (["--target", "other/pod-a"], "there is no other/pod-a"),
        (["--target", "pod-a,pod-b"], "cannot be distinguished"),
    ],
)
def test_what_cannot_be_shown_is_refused_at_once(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.parametrize("content", [b"", b"not gzip", b"\x1f\x8b\x08\x00broken"])
def test_what_is_no_recording_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "recording.gz"
    path.write_bytes(content)
    done = run(tmp_path / "out", "--replay", str(path))
    assert done.returncode == 3
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr

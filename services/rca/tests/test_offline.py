"""The commands `fetch` and `analyse`."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowverdict_rca.offline import OfflineError, read_pairs, transactions

RCA = str(Path(sys.executable).with_name("flowverdict-rca"))
BROKEN = "10.244.92.159"
OTHERS = ("10.244.92.132", "10.244.92.134", "10.244.92.190")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([RCA, *arguments], capture_output=True, text=True, check=False)


def series(src: str, dst: str, *values: str) -> str:
    samples = [[1774000000 + 30 * at, value] for at, value in enumerate(values)]
    return json.dumps({"metric": {"src_ip": src, "dst_ip": dst}, "values": samples})


@pytest.fixture
def seed_file(tmp_path: Path) -> Path:
    path = tmp_path / "tcp_retransmissions.jsonl"
    lines = [series(BROKEN, other, "3", "12") for other in OTHERS]
    lines += [series(other, BROKEN, "1") for other in OTHERS]
    path.write_text("\n".join(lines) + "\n\n")
    return path


def test_the_seeds_example_is_printed_with_its_figures(seed_file: Path) -> None:
    printed = run("analyse", str(seed_file)).stdout.splitlines()
    words = [line.split() for line in printed]
    assert ["9", "0.500000", f"{BROKEN},", "FAIL"] in words
    assert ["6", "0.333333", "10.244.92.132,", "OK"] in words
    assert ["0", "FAIL", BROKEN, "0.5", "1.0", "2.0"] in words
    assert ["1", BROKEN, "FAIL", "0.5", "1.0", "2.0"] in words


def test_the_same_comes_as_json_for_machines(seed_file: Path) -> None:
    document = json.loads(run("analyse", str(seed_file), "--json").stdout)
    assert (document["flows"], document["failing"]) == (12, 6)
    assert len(document["itemsets"]) == 10
    assert [rule["consequents"] for rule in document["rules"]] == [[BROKEN], ["FAIL"]]
    assert all(rule["lift"] == 2.0 for rule in document["rules"])


def test_a_pair_whose_counter_stayed_at_zero_is_ok(tmp_path: Path) -> None:
    pairs = read_pairs([series("a", "b", "0", "0"), series("b", "a", "0", "2"), ""])
    assert pairs == {("a", "b"): False, ("b", "a"): True}
    assert frozenset({"a", "b", "OK"}) in transactions(pairs)


@given(st.dictionaries(st.tuples(st.sampled_from("abcd"), st.sampled_from("efgh")), st.booleans()))
def test_every_directed_pair_of_addresses_is_one_transaction(
    pairs: dict[tuple[str, str], bool],
) -> None:
    flows = transactions(pairs)
    addresses = {address for pair in pairs for address in pair}
    assert len(flows) == len(addresses) * max(len(addresses) - 1, 0)
    assert sum("FAIL" in flow for flow in flows) == sum(pairs.values())


def test_a_line_that_is_no_series_is_named_by_its_number() -> None:
    with pytest.raises(OfflineError, match="line 2"):
        read_pairs([series("a", "b", "1"), "{"])
    with pytest.raises(OfflineError, match="line 1"):
        read_pairs([series("a", "b", "many")])


@pytest.mark.parametrize("content", [None, "", "[]\n", '{"metric": {}}\n', "\x00"])
def test_a_file_that_cannot_be_analysed_is_an_error_and_no_traceback(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "x.jsonl"
    if content is not None:
        path.write_text(content)
    done = run("analyse", str(path))
    assert done.returncode == 1
    assert done.stderr.startswith("flowverdict-rca: ")
    assert "Traceback" not in done.stderr


@pytest.fixture
def server() -> Iterator[tuple[str, list[bytes]]]:
    """Something that answers every GET with what is in the list."""
    body: list[bytes] = [b""]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body[0])

        def log_message(self, format: str, *args: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}", body
    running.shutdown()
    running.server_close()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"<html>", "does not answer like a Prometheus server"),
        (b"[]", "does not answer like a Prometheus server"),
        (b'{"data": {"result": []}}', "has no tcp_retransmissions_total"),
    ],
)
def test_what_is_no_prometheus_is_reported(
    tmp_path: Path, server: tuple[str, list[bytes]], answer: bytes, words: str
) -> None:
    url, body = server
    body[0] = answer
    done = run("fetch", url, "--out", str(tmp_path / "x"))
    assert done.returncode == 1
    assert words in done.stderr
    assert not (tmp_path / "x").exists()


def test_a_prometheus_that_is_away_is_reported() -> None:
    done = run("fetch", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr

"""The commands `fetch` and `analyse`."""

import contextlib
import itertools
import json
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowverdict_rca import prometheus
from flowverdict_rca.mining import itemsets_and_rules, itemsets_and_rules_of_pairs
from flowverdict_rca.offline import transactions
from flowverdict_rca.series import OfflineError, read_pairs

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
    assert printed[-1].startswith(f"Most likely at fault: {BROKEN}. 100% of its flows fail, 2.0 ti")


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


@given(
    st.sets(st.permutations("abcdef").map(lambda each: (each[0], each[1])), min_size=1),
    st.sampled_from((0.1, 0.15, 0.2, 0.3)),
    st.sampled_from((0.3, 0.7, 1.0)),
)
def test_counting_finds_what_apriori_finds(
    failing: set[tuple[str, str]], min_support: float, min_confidence: float
) -> None:
    pairs = dict.fromkeys(itertools.permutations("abcdef", 2), False) | dict.fromkeys(failing, True)
    mined, rules = itemsets_and_rules(transactions(pairs), min_support, min_confidence)
    counted, same_rules = itemsets_and_rules_of_pairs(
        "abcdef", sorted(failing), min_support, min_confidence
    )
    assert mined.to_dict("records") == counted.to_dict("records")
    assert rules == same_rules


@pytest.mark.parametrize(
    ("values", "fails"),
    [
        (["7", "7", "7"], False),  # it counted these before
        (["0", "3"], True),
        (["9", "9", "2"], True),  # restarted
        (["4"], True),
        (["0"], False),
        (["NaN", "5", "+Inf", "5"], False),
    ],
)
def test_a_pair_fails_if_its_counter_grew(values: list[str], fails: bool) -> None:
    assert read_pairs([series("a", "b", *values)]) == {("a", "b"): fails}


def test_a_counter_that_began_after_others_grew_from_zero() -> None:
    late = {"metric": {"src_ip": "b", "dst_ip": "a"}, "values": [[1774000030, "5"]] * 2}
    pairs = read_pairs([series("a", "b", "5", "5", "5"), json.dumps(late)])
    assert pairs == {("a", "b"): False, ("b", "a"): True}


@pytest.mark.parametrize(
    ("metric", "samples", "why"),
    [
        (
            {"src_ip": "a", "dst_ip": "c"},
            {"values": []},
            "without a sample that a counter can have",
        ),
        (
            {"src_ip": "a", "dst_ip": "c"},
            {"histograms": [[1, {"count": "0"}]]},
            "without a sample that a counter can have",
        ),
        ({"dst_ip": "c"}, {"values": [[1, "5"]]}, "without src_ip and dst_ip"),
        (
            {"src_ip": "other", "dst_ip": "other"},
            {"values": [[1, "5"]]},
            "of the pairs that the exporter had no series left for",
        ),
    ],
)
def test_what_says_nothing_about_a_pair_is_left_out_with_a_word(
    tmp_path: Path, metric: dict[str, str], samples: dict[str, object], why: str
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(series("a", "b", "0", "1") + "\n" + json.dumps({"metric": metric, **samples}))
    done = run("analyse", str(path), "--json")
    assert done.returncode == 0
    assert done.stderr == f"left out 1 series {why}\n"
    assert json.loads(done.stdout)["flows"] == 2


def test_answers_of_the_api_and_of_promtool_are_read(tmp_path: Path) -> None:
    result = [json.loads(series("a", "b", "0", "1"))]
    path = tmp_path / "x.json"
    for document in ({"status": "success", "data": {"result": result}}, result):
        path.write_text(json.dumps(document, indent=2))
        assert json.loads(run("analyse", str(path), "--json").stdout)["failing"] == 1
    path.write_text('{"status": "error", "error": "query timed out"}')
    assert "query timed out" in run("analyse", str(path)).stderr


@pytest.mark.parametrize("count", [11, 300, 2000])
def test_one_broken_address_of_many_is_the_first_rule(tmp_path: Path, count: int) -> None:
    addresses = [f"10.1.{each // 250}.{each % 250}" for each in range(count)]
    broken = addresses[count // 2]
    lines = [series(broken, each, "0", "9") for each in addresses if each != broken]
    lines += [series(each, broken, "0", "9") for each in addresses if each != broken]
    path = tmp_path / "x.jsonl"
    path.write_text("\n".join(lines))
    document = json.loads(run("analyse", str(path), "--json").stdout)
    assert document["flows"] == count * (count - 1)
    about_failure = [rule for rule in document["rules"] if rule["consequents"] == ["FAIL"]]
    assert [(rule["antecedents"], rule["confidence"]) for rule in about_failure] == [
        ([broken], 1.0)
    ]


def test_an_address_that_suffers_only_one_way_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    addresses = [f"10.0.0.{number}" for number in range(30)]
    path.write_text(
        "\n".join(
            series(src, dst, "0", "5" if src == addresses[7] else "0")
            for src, dst in itertools.permutations(addresses, 2)
        )
    )
    done = run("analyse", str(path))
    assert done.returncode == 0
    assert "Most likely at fault: 10.0.0.7. 50% of its flows fail" in done.stdout


def test_names_in_a_file_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    odd = "\x1b]0;owned\x07\x1b[2J"
    path.write_text("\n".join(series(*pair, "0", "5") for pair in ((odd, "b"), ("b", odd))))
    done = run("analyse", str(path))
    assert "\x1b" not in done.stdout + done.stderr
    assert "\x1b" not in run("analyse", str(path), "--json").stdout


def test_without_any_rule_it_fails_with_a_hint(seed_file: Path) -> None:
    done = run("analyse", str(seed_file), "--min-support", "0.9")
    assert done.returncode == 1
    assert "no rule: lower --min-support or --min-confidence" in done.stderr


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


@contextlib.contextmanager
def answering(body: bytes, status: int = 200, location: str = "") -> Iterator[str]:
    """A server that answers every GET like this; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


@pytest.fixture
def server() -> Iterator[tuple[str, list[bytes]]]:
    """Something that answers every GET with what is in the list."""
    body: list[bytes] = [b""]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            request = [self.path.partition("?")[0]]
            request += [self.headers.get(each, "") for each in ("Authorization", "X-Scope-OrgID")]
            body.append(" ".join(request).encode())
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


def test_an_error_that_others_wrote_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    with answering(b"\x1b[2Jno", status=500) as url:
        done = run("fetch", url, "--out", str(tmp_path / "x"))
    assert done.returncode == 1
    assert "returned 500" in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("where", ["http://127.0.0.2/", "ftp://127.0.0.1/x", "file:///etc"])
def test_credentials_go_to_no_other_server(tmp_path: Path, where: str) -> None:
    with answering(b"", 302, where) as url:
        done = run("fetch", url.replace("//", "//me:secret@"), "--out", str(tmp_path / "x"))
    assert done.returncode == 1
    assert "redirects to" in done.stderr or "returned 302" in done.stderr
    assert "secret" not in done.stderr


def test_an_answer_without_end_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "_MOST_BYTES", 1 << 20)
    with answering(b"x" * (4 << 20)) as url, pytest.raises(OfflineError, match="more than 1 MiB"):
        prometheus.fetch(url, tmp_path / "x", 10)


@pytest.mark.parametrize(
    "begun",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: ",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 503 No\r\n\r\n",
    ],
)
def test_an_answer_that_trickles_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(prometheus, "_PATIENCE_SECONDS", 0.5)
    done = threading.Event()

    class Trickling(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                self.request.sendall(begun)
                while not done.wait(0.05):
                    self.request.sendall(b"0")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Trickling) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        with pytest.raises(OfflineError, match="fewer --minutes"):
            prometheus.fetch(url, tmp_path / "x", 10)
        done.set()
        server.shutdown()


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("", "/api/v1/query_range"),
        ("/", "/api/v1/query_range"),
        ("/api/v1/query", "/api/v1/query_range"),
        (
            "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy",
            "/api/v1/namespaces/monitoring/services/prometheus:9090/proxy/api/v1/query_range",
        ),
    ],
)
def test_any_base_address_with_any_credentials_is_asked(
    tmp_path: Path, server: tuple[str, list[bytes]], path: str, asked: str
) -> None:
    url, body = server
    body[0] = json.dumps({"data": {"result": [json.loads(series("a", "b", "1"))]}}).encode()
    (tmp_path / "token").write_text("secret-token\n")
    out = ("--out", str(tmp_path / "x"))
    options = ("--token-file", str(tmp_path / "token"), "--tenant", "shop", "--minutes", "50000")
    assert run("fetch", url + path, *out, *options).returncode == 0
    assert body[-1].decode() == f"{asked} Bearer secret-token shop"
    assert run("fetch", url.replace("//", "//us%40er:pass@") + path, *out).returncode == 0
    assert body[-1].decode() == f"{asked} Basic dXNAZXI6cGFzcw== "


def test_a_bearer_token_may_stand_in_the_environment_and_must_be_one_line(
    tmp_path: Path, server: tuple[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, body = server
    body[0] = json.dumps({"data": {"result": [json.loads(series("a", "b", "1"))]}}).encode()
    monkeypatch.setenv("FLOWVERDICT_PROMETHEUS_TOKEN", "of-the-environment\n")
    assert run("fetch", url, "--out", str(tmp_path / "x")).returncode == 0
    assert body[-1].decode() == "/api/v1/query_range Bearer of-the-environment "
    monkeypatch.setenv("FLOWVERDICT_PROMETHEUS_TOKEN", "two\nlines")
    done = run("fetch", url, "--out", str(tmp_path / "x"))
    assert done.returncode == 1
    assert "does not hold one line of text" in done.stderr
    assert "two" not in done.stderr


def test_a_password_in_the_address_is_never_printed() -> None:
    for url in (
        "http://user:pa55word@127.0.0.1:1",
        "ftp://user:pa55word@127.0.0.1:1",
        "http://user:pa55word/more@127.0.0.1:1/x",
        "http://user:pa55word#more@127.0.0.1:1",
        "http://user:more?pa55word@127.0.0.1:1",
        "http://user:more@pa55word@127.0.0.1:1",
    ):
        done = run("fetch", url)
        assert done.returncode == 1
        assert "pa55word" not in done.stdout + done.stderr


def test_a_prometheus_that_is_away_is_reported() -> None:
    done = run("fetch", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr

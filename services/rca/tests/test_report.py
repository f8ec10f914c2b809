"""Verdicts and flows on NATS in, one HTML file out; looked at in a real browser."""

import asyncio
import html
import itertools
import json
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client

from conftest import NatsServer, a_cause, a_verdict, enriched_batch, flow_row, header
from flowverdict_contracts import enriched, verdicts
from flowverdict_contracts.subjects import SUBJECT_ENRICHED, SUBJECT_VERDICTS
from flowverdict_contracts.verdicts import FailingFlow, FlowCounts, Rule, Verdict, most_telling
from flowverdict_rca.report.command import ReportError, report
from flowverdict_rca.report.next_steps import commands
from flowverdict_runtime.service_settings import nats_settings
from flowverdict_runtime.streams import ensure_streams

CHROMIUM = shutil.which("chromium")
PODS = {"pod-a": "worker0", "pod-b": "worker0", "pod-c": "worker1"}
NOW = int(time.time())


def verdict_at(status: str, second: int, incident_id: str = "c1", **changes: Any) -> Verdict:
    verdict = a_verdict(status=status, second=NOW + second, incident_id=incident_id)
    rule = Rule(
        antecedents=("FAIL",), consequents=("pod default/pod-a",), support=0.5, confidence=1.0,
        lift=2.0, leverage=0.25, p_value=0.01,
    )  # fmt: skip
    flow = FailingFlow(
        src="default/pod-a", dst="default/pod-b", retransmission_ratio=0.2,
        connect_retransmission_ratio=0.0, data_segments_sent=100, retransmitted_data_segments=20,
        retransmitted_syns=0, retransmitted_synacks=0, opens=1, failed_opens=0, refused_opens=0,
        timed_out_opens=0, unreachable_opens=0, dns_answers=0, dns_failures=0, dns_unanswered=0,
        rtt_us=1500, segments_sent=150,
        segments_arrived=130,
    )  # fmt: skip
    return msgspec.structs.replace(verdict, rules=(rule,), failing_flows=(flow,), **changes)


async def publish_verdicts(client: Client, *them: Verdict) -> None:
    jetstream = client.jetstream()
    await ensure_streams(jetstream)
    for verdict in them:
        headers = {"Nats-Msg-Id": verdict.id}
        await jetstream.publish(SUBJECT_VERDICTS, verdicts.encode(verdict), headers=headers)


async def publish_flows(
    client: Client,
    bad_from: int,
    bad_until: int,
    *,
    lost: int = 20,
    rtt_us: int = 400,
    pods: dict[str, str] = PODS,
) -> None:
    """A minute of flows; of what pod-a sends or is sent, some are lost or slow in between."""
    jetstream = client.jetstream()
    for second in range(-50, 40):
        rows = []
        for src, src_node in pods.items():
            for dst, dst_node in pods.items():
                bad = bad_from <= second < bad_until and "pod-a" in (src, dst)
                again = lost if bad else 0
                if src != dst:
                    row = flow_row(
                        f"{src}@{src_node}", f"{dst}@{dst_node}", retransmitted_segments=again,
                        rtt_us=rtt_us if bad else 400,
                    )  # fmt: skip
                    rows.append(row)
        batch = enriched.encode(enriched_batch(*rows))
        headers = header(NOW + second, second + 51).encode(enriched.SCHEMA)
        await jetstream.publish(SUBJECT_ENRICHED, batch, headers=headers)


async def page_of(nats_server: NatsServer, folder: Path, incident_id: str | None = None) -> str:
    out = folder / "out" / "report.html"
    await asyncio.to_thread(report, nats_settings(nats_server.url), incident_id, out)
    return out.read_text()


def words(page: str) -> str:
    """What a reader sees."""
    text = re.sub(r"<(style|title)>.*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(text).split())


def matrix(page: str, phase: str) -> list[list[str]]:
    table = page.split(f"<caption>{phase}</caption>")[1].split("</table>", maxsplit=1)[0]
    rows = table.split("<tbody>")[1].split("<tr>")[1:]
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]


async def test_a_report_says_who_when_where_and_why(
    nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> None:
    published = [
        verdict_at("opened", 10),
        verdict_at("ongoing", 12),
        verdict_at("resolved", 30),
    ]
    await publish_verdicts(nats_client, *published)
    await publish_flows(nats_client, 2, 13)
    page = await page_of(nats_server, tmp_path)
    text = words(page)
    assert "pod default/pod-a is to blame" in text
    assert "resolved" in text
    assert "FAIL pod default/pod-a 50% 100% 2.00" in text
    assert "default/pod-a default/pod-b 20% 100 0 1.5 ms" in text
    assert matrix(page, "before") == [["", "0", "0"], ["0", "", "0"], ["0", "0", ""]]
    during = matrix(page, "during")
    assert all(int(each) > 10 for each in [*during[0][1:], during[1][0], during[2][0]])
    assert (during[1][2], during[2][1]) == ("0", "0")
    assert matrix(page, "after") == matrix(page, "before")
    (blamed,) = re.findall(r'<g class="spot blamed"><title>(.*?), to blame', page)
    assert blamed == "default/pod-a"
    assert "worker0" in text
    assert page.count('class="bad"') == 2, "one line for the two ways between two pods"
    assert "src=" not in page
    assert "http" not in re.sub(r'http-equiv="Content-Security-Policy"', "", page)


async def test_a_report_on_latency_shows_round_trips(
    nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> None:
    opened = verdict_at("opened", 10, conditions=("HIGH_LATENCY",))
    slow = msgspec.structs.replace(opened.failing_flows[0], rtt_us=100_000)
    published = [msgspec.structs.replace(opened, failing_flows=(slow,)), verdict_at("resolved", 30)]
    await publish_verdicts(nats_client, *published)
    await publish_flows(nats_client, 2, 13, lost=0, rtt_us=100_000)
    page = await page_of(nats_server, tmp_path)
    text = words(page)
    assert "Flows with a round-trip time above 50 ms fail" in text
    assert "Round-trip time, in steps of two seconds" in text
    assert "Round-trip time from the row to the column in milliseconds" in text
    assert matrix(page, "before")[0] == ["", "&lt;1", "&lt;1"]
    during = matrix(page, "during")
    assert all(int(each) > 50 for each in during[0][1:])
    assert during[1][2] == "&lt;1"


async def test_a_report_on_a_low_loss_shows_what_is_below_the_threshold_in_red(
    nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> None:
    opened = verdict_at("opened", 10)
    low = msgspec.structs.replace(opened.failing_flows[0], retransmission_ratio=0.02)
    published = [msgspec.structs.replace(opened, failing_flows=(low,)), verdict_at("resolved", 30)]
    await publish_verdicts(nats_client, *published)
    await publish_flows(nats_client, 2, 13, lost=2)
    text = words(await page_of(nats_server, tmp_path))
    assert "Flows with a retransmission ratio above 1% fail" in text


async def test_an_open_incident_has_no_after(
    nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> None:
    await publish_verdicts(nats_client, verdict_at("opened", 10), verdict_at("ongoing", 12))
    await publish_flows(nats_client, 2, 40)
    page = await page_of(nats_server, tmp_path)
    assert '<span class="badge open">open</span>' in page
    assert "<caption>during</caption>" in page
    assert "<caption>after</caption>" not in page


async def test_without_flows_the_verdict_is_reported_and_what_is_missing_verdict_at(
    nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> None:
    await publish_verdicts(nats_client, verdict_at("opened", 10))
    text = words(await page_of(nats_server, tmp_path))
    assert "Flows are kept for an hour" in text
    assert "pod default/pod-a is to blame" in text


async def test_a_verdict_without_a_cause_blames_nothing(
    nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> None:
    nothing: dict[str, Any] = {
        "causes": (),
        "enough_evidence": False,
        "summary": "6 flows fail, and no more.",
    }
    await publish_verdicts(nats_client, verdict_at("opened", 10, **nothing))
    await publish_flows(nats_client, 2, 40)
    page = await page_of(nats_server, tmp_path)
    assert "not enough evidence to blame anything" in words(page)
    assert "spot blamed" not in page


async def test_names_are_text_whatever_they_hold(
    nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> None:
    odd = "<script>alert(1)</script>\"'&\x1b]52;c;evil\x07\u202e"
    cause = a_cause("pod", f"default/{odd}")
    await publish_verdicts(nats_client, verdict_at("opened", 10, causes=(cause,), summary=odd))
    row = flow_row("pod-a@w", "pod-b@w", retransmitted_segments=50) | {"dst_pod": odd}
    headers = header(NOW + 5).encode(enriched.SCHEMA)
    body = enriched.encode(enriched_batch(row))
    await nats_client.jetstream().publish(SUBJECT_ENRICHED, body, headers=headers)
    page = await page_of(nats_server, tmp_path)
    assert "<script" not in page
    assert not set(page) & {"\x1b", "\x07", "\u202e"}
    assert html.escape(odd, quote=False)[:10] in page


async def test_the_newest_incident_is_reported_unless_one_is_named(
    nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> None:
    await publish_verdicts(
        nats_client, verdict_at("opened", 10, "c1"), verdict_at("opened", 20, "c2")
    )
    assert "Incident c2" in await page_of(nats_server, tmp_path)
    assert "Incident c1" in await page_of(nats_server, tmp_path, "c1")
    with pytest.raises(ReportError, match="no incident c3; the newest are c1, c2"):
        await page_of(nats_server, tmp_path, "c3")


async def test_an_incident_is_named_by_its_whole_id_and_strays_are_skipped(
    nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> None:
    await publish_verdicts(
        nats_client, verdict_at("opened", 10, "c1"), verdict_at("opened", 20, "c1e")
    )
    await nats_client.jetstream().publish(
        SUBJECT_VERDICTS, verdicts.encode(verdict_at("opened", 30))
    )
    assert "Incident c1 " in await page_of(nats_server, tmp_path, "c1")
    assert "Incident c1e" in await page_of(nats_server, tmp_path)


async def test_of_very_many_messages_only_some_are_read_and_the_page_says_so(
    nats_server: NatsServer,
    nats_client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flowverdict_rca.report.gather._MAX_MESSAGES", 40)
    await publish_verdicts(nats_client, verdict_at("opened", 10), verdict_at("resolved", 30))
    await publish_flows(nats_client, 2, 13)
    page = await page_of(nats_server, tmp_path)
    assert "one second in 3" in words(page)
    assert matrix(page, "before") == [["", "0", "0"], ["0", "", "0"], ["0", "0", ""]]


async def test_what_is_missing_is_verdict_at(
    nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> None:
    with pytest.raises(ReportError, match="none of Flowverdict's streams"):
        await page_of(nats_server, tmp_path)
    await ensure_streams(nats_client.jetstream())
    with pytest.raises(ReportError, match="no verdict on NATS"):
        await page_of(nats_server, tmp_path)
    with pytest.raises(ReportError, match=r"NATS at nats://127\.0\.0\.1:1"):
        await asyncio.to_thread(
            report, nats_settings("nats://127.0.0.1:1"), None, tmp_path / "r.html"
        )


MEASURE = """
<script>
const style = getComputedStyle(document.body), root = document.documentElement;
const regions = [...document.querySelectorAll('.scroll')];
regions.forEach(each => each.focus());
const box = name => [...document.querySelectorAll(name)]
  .map(each => each.getBoundingClientRect()).find(each => each.height > 0);
const shown = each => each && each.getBoundingClientRect().height > 0;
parent.document.body.dataset.measured = JSON.stringify({
  beside: box('.map') ? box('.timeline').left - box('.map').right : null,
  cut: regions.filter(each => each.scrollWidth > each.clientWidth + 1).length,
  blamed: [...document.querySelectorAll('.blamed')].filter(shown).map(each => each.textContent),
  timelines: [...document.querySelectorAll('.timeline')].filter(shown).length,
  overflow: root.scrollWidth - root.clientWidth,
  regions: regions.length,
  focusable: regions.filter(each => each.tabIndex === 0 && each.getAttribute('role')).length,
  lastFocused: document.activeElement === regions[regions.length - 1],
  background: style.backgroundColor, ink: style.color,
  unnamed: [...document.querySelectorAll('svg')].filter(s => !s.getAttribute('aria-label')).length,
});
</script>
"""


def in_browser(page: str, folder: Path, width: int, dark: bool) -> dict[str, Any]:
    """What the browser makes of the page; the script that asks is not part of it.

    The page is in a frame, since a window has at least 500 pixels.
    """
    file = folder / f"{width}.html"
    allowed = re.sub(r'<meta http-equiv="Content-Security-Policy".*?>', "", page)
    framed = html.escape(allowed.replace("</body>", f"{MEASURE}</body>"))
    frame = f'<iframe width="{width}" height="900" srcdoc="{framed}"></iframe>'
    file.write_text(f"<!doctype html><body>{frame}</body>")
    argv = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    argv += ["--disable-quic", "--disable-background-networking", "--disable-component-update"]
    argv += ["--disable-sync", f"--user-data-dir={folder}/profile"]
    argv += [f"--window-size={width + 100},1000"]
    argv += ["--blink-settings=preferredColorScheme=0"] if dark else []
    done = subprocess.run(
        [*argv, "--dump-dom", file.as_uri()], capture_output=True, text=True, timeout=60, check=True
    )
    measured = re.search(r'data-measured="([^"]*)"', done.stdout)
    assert measured, done.stderr[-500:]
    found: dict[str, Any] = json.loads(html.unescape(measured[1]))
    return found


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours (WCAG 2.2, 1.4.3)."""

    def luminance(colour: str) -> float:
        parts = [int(each) / 255 for each in re.findall(r"\d+", colour)[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium comes from Debian's package")
async def test_a_browser_shows_it_on_a_desk_and_a_phone_in_light_and_dark(
    nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> None:
    published = [
        verdict_at("opened", 10),
        verdict_at("ongoing", 12),
        verdict_at("resolved", 30),
    ]
    await publish_verdicts(nats_client, *published)
    await publish_flows(nats_client, 2, 13)
    page = await page_of(nats_server, tmp_path)
    seen = {
        (width, dark): await asyncio.to_thread(in_browser, page, tmp_path, width, dark)
        for width, dark in ((1200, False), (1200, True), (360, False))
    }
    for found in seen.values():
        assert found["overflow"] <= 0, "the page itself never scrolls sideways"
        assert found["regions"] == found["focusable"] > 5
        assert found["lastFocused"], "what scrolls can be reached by keyboard"
        assert found["unnamed"] == 0
        assert found["cut"] == 0
        assert any("default/pod-a" in each for each in found["blamed"])
        assert found["timelines"] == 1
        assert contrast(found["background"], found["ink"]) > 7
    assert seen[1200, False]["beside"] >= 0, "a desk's width is used"
    assert seen[1200, False]["background"] != seen[1200, True]["background"]


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium comes from Debian's package")
async def test_on_a_phone_many_pods_with_long_names_are_not_cut_either(
    nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> None:
    names = [f"recommendation-service-7d9f8b6c5d-x{number}kq" for number in range(9)]
    pods = {**PODS, **dict.fromkeys(names, "ip-10-0-117-23.eu-central-1.compute.internal")}
    await publish_verdicts(nats_client, verdict_at("opened", 10))
    await publish_flows(nats_client, 2, 13, pods=pods)
    page = await page_of(nats_server, tmp_path)
    found = await asyncio.to_thread(in_browser, page, tmp_path, 360, False)
    assert found["overflow"] <= 0
    assert found["cut"] == 0
    assert "need a wider screen" in words(page)


async def test_the_report_ends_with_commands_for_the_cause_and_who_is_affected(
    nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> None:
    odd = a_cause("pod", "shop/cart'; rm -rf")
    await publish_verdicts(nats_client, verdict_at("opened", 10, causes=(odd,)))
    page = html.unescape(await page_of(nats_server, tmp_path))
    assert """kubectl -n shop describe pod 'cart'"'"'; rm -rf'""" in page
    assert "tcpdump -ni any 'tcp and (host " in page
    assert "ip -s link" in page
    assert "Affected: default/pod-a, default/pod-b." in page


@pytest.mark.parametrize(
    ("kind", "name", "command"),
    [
        ("node", "worker1", "kubectl describe node worker1"),
        ("service", "shop/cart", "-l kubernetes.io/service-name=cart"),
        ("workload", "shop/cart", "kubectl -n shop get pods -o wide"),
        ("external", "192.0.2.7", "tracepath -n 192.0.2.7"),
        ("link", "shop/a <-> shop/b", "kubectl -n shop describe pod b"),
        ("link", "shop/a <-> shop/b", "kubectl -n shop get networkpolicies"),
        ("workload_link", "shop/cart <-> pay/bank", "kubectl -n pay get networkpolicies"),
        ("node_link", "w1 <-> w2", "errors and drops of the interfaces, on node w2"),
    ],
)
def test_each_kind_of_cause_has_its_commands(kind: str, name: str, command: str) -> None:
    verdict = verdict_at("opened", 10, causes=(a_cause(kind, name),))
    assert command in " ".join(itertools.chain(*commands(verdict)))


def test_the_most_telling_verdict_is_the_one_with_the_most_failing_flows() -> None:
    counts = [FlowCounts(failing=n, ok=6, undecided=0) for n in (2, 6, 6, 3)]
    them = [verdict_at("ongoing", at, flows=each) for at, each in enumerate(counts)]
    resolved = verdict_at("resolved", 9, flows=FlowCounts(failing=9, ok=0, undecided=0))
    assert most_telling([*them, resolved]) is them[1]
    assert most_telling([resolved]) is None

"""DNS lookups from the kernel to a verdict."""

import pytest

from conftest import eventually
from flowverdict_contracts.subjects import RCA_VERDICTS
from flowverdict_contracts.verdicts import Verdict
from flowverdict_contracts.verdicts import decode as decode_verdict
from flowverdict_lab.live_support import why_not_live
from flowverdict_lab.network import Network
from flowverdict_lab.pipeline import Pipeline
from tests.dns_traffic import look_up, serve
from tests.kernel_counts import jetstream_of, read_all

REASON = why_not_live()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"no live run: {REASON}")


@pytest.mark.parametrize("lab", [{"FLOWVERDICT_DNS": "on"}], indirect=True)
async def test_a_dns_server_that_does_not_answer_is_named(
    lab: tuple[Network, Pipeline],
) -> None:
    network, pipeline = lab
    server, *clients = network.cluster.pods
    serve(network, server, server.ipv4)
    network.start_traffic(5)
    async with jetstream_of(pipeline) as jetstream:

        async def opened() -> Verdict | None:
            for client in clients:
                look_up(network, client, server.ipv4, ["9"] * 10)
            found = [decode_verdict(each.data) for each in await read_all(jetstream, RCA_VERDICTS)]
            return next((each for each in found if each.causes), None)

        verdict = await eventually(opened, 90)
    assert str(verdict.causes[0]) == f"pod default/{server.name}"
    assert verdict.conditions == ("DNS_FAILURE",)
    assert "DNS lookups are not answered" in verdict.summary
    assert "Lookups that failed: 9 (" in verdict.summary
    assert set(verdict.failing_flows[0].failed_names) == {"9"}
    assert 'dst_pod="pod-a"' in next(
        line
        for line in pipeline.page("exporter", "/metrics").splitlines()
        if line.startswith("dns_unanswered_total{")
    )
    assert any(
        line.startswith("dns_lookups_by_name_total{") and 'result="unanswered"' in line
        for line in pipeline.page("exporter", "/metrics").splitlines()
    )

"""What to do about a verdict: commands to paste, and who suffers."""

import shlex
from collections.abc import Iterator

from flowverdict_contracts.verdicts import Cause, ComponentEnd, Verdict

__all__ = ["affected", "commands"]


def affected(verdict: Verdict) -> tuple[str, ...]:
    """The endpoints whose flows fail, but for the blamed one, by name."""
    blamed = {str(end) for cause in verdict.causes[:1] for end in cause.ends}
    ends = {end for flow in verdict.failing_flows for end in (flow.src, flow.dst)}
    return tuple(sorted(ends - blamed))


def commands(verdict: Verdict) -> list[tuple[str, str]]:
    """What each shows, and the command for a shell, for the blamed component."""
    return list(dict.fromkeys(step for cause in verdict.causes[:1] for step in _steps(cause)))


def _steps(cause: Cause) -> Iterator[tuple[str, str]]:
    for end in cause.ends:
        yield from _of_end(end)
    if cause.kind in ("link", "workload_link"):
        for namespace in filter(None, dict.fromkeys(end.namespace for end in cause.ends)):
            what = f"network policies in {namespace}"
            yield what, f"kubectl -n {shlex.quote(namespace)} get networkpolicies"
    nodes = [end.name for end in cause.ends if end.kind == "node"] or [cause.node]
    for node in filter(None, dict.fromkeys(nodes)):
        yield f"errors and drops of the interfaces, on node {node}", "ip -s link"
        yield f"TCP's own counters, on node {node}", "nstat -az 'TcpRetransSegs' 'TcpExt*'"
    if cause.addresses:
        hosts = " or ".join(f"host {address}" for address in cause.addresses[:4])
        where = f"on node {cause.node}" if cause.node else "on a node at either end"
        yield f"its packets, {where}", f"tcpdump -ni any {shlex.quote(f'tcp and ({hosts})')}"


def _of_end(end: ComponentEnd) -> Iterator[tuple[str, str]]:
    namespace, name = shlex.quote(end.namespace), shlex.quote(end.name)
    if end.kind == "pod":
        yield "its state and events", f"kubectl -n {namespace} describe pod {name}"
        yield "what it says", f"kubectl -n {namespace} logs {name} --all-containers --tail 50"
    elif end.kind == "workload":
        yield "its last rollouts", f"kubectl -n {namespace} get events --sort-by .lastTimestamp"
        yield "its pods", f"kubectl -n {namespace} get pods -o wide"
    elif end.kind == "service":
        label = shlex.quote(f"kubernetes.io/service-name={end.name}")
        yield "its endpoints", f"kubectl -n {namespace} get endpointslices -l {label} -o wide"
        yield "its state and events", f"kubectl -n {namespace} describe service {name}"
    elif end.kind == "node":
        yield "its state and events", f"kubectl describe node {name}"
        yield "its pods", f"kubectl get pods -A -o wide --field-selector spec.nodeName={name}"
    elif end.kind == "label":
        yield "its pods", f"kubectl get pods -A -o wide -l {name}"
    elif end.kind == "zone":
        label = shlex.quote(f"topology.kubernetes.io/zone={end.name}")
        yield "its nodes", f"kubectl get nodes -o wide -l {label}"
    else:
        yield "the way to it", f"tracepath -n {name}"

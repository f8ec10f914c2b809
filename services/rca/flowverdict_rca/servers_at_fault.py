"""Suspects as people would name them: the pods of one service as that service, and who is called
rather than who calls.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from flowverdict_contracts.verdicts import Component, Direction
from flowverdict_flows.components import component_of, parts_of
from flowverdict_flows.endpoint import Endpoint
from flowverdict_rca.suspects import Suspect
from flowverdict_rca.window import Window
from flowverdict_rca.window_table import pairs_of

__all__ = ["as_servers"]

Mask = npt.NDArray[np.bool_]


def as_servers(
    suspects: Iterable[Suspect], window: Window, judged: Mask, bad: Mask
) -> list[Suspect]:
    """The suspects, with those that are one fault as one.

    - All pods of a service or a workload that suffer one way are that service or workload.
    - If all connections that somebody, or a workload's pods, open to a server fail, and nobody else
      calls that server, it is the server: a caller can hardly make it refuse or reset them.

    Args:
        suspects: as `localise` names them.
        window: they are from.
        judged: the pairs that were looked at.
        bad: those of them that show it.
    """
    return [_server_of(each, window, judged, bad) for each in _merged(suspects, window, judged)]


def _merged(suspects: Iterable[Suspect], window: Window, judged: Mask) -> Iterator[Suspect]:
    by_way: dict[Direction, list[Suspect]] = {}
    for each in suspects:
        if each.component.kind == "pod" and each.direction in ("sending", "receiving"):
            by_way.setdefault(each.direction, []).append(each)
        else:
            yield each
    for way, pods in by_way.items():
        left = {each.component: each for each in pods}
        side = window.src if way == "sending" else window.dst
        active = {window.endpoints[at] for at in np.unique(side[judged]).tolist()}
        for component, members in _groups(active, window):
            names = {component_of(pod) for pod in members}
            if len(names) > 1 and names <= left.keys():
                rate = max(left.pop(each).rate for each in names)
                yield Suspect(component, way, pairs_of(component, way, window), rate, ())
        yield from left.values()


def _groups(active: set[Endpoint], window: Window) -> Iterator[tuple[Component, set[Endpoint]]]:
    """Services, then workloads, with those of their pods that are active."""
    for service, backends in window.facts.backends.items():
        yield component_of(service), active & backends
    of_workload: dict[Component, set[Endpoint]] = {}
    for pod in active:
        for part in parts_of(pod):
            if part.kind == "workload":
                of_workload.setdefault(part, set()).add(pod)
    yield from of_workload.items()


def _server_of(suspect: Suspect, window: Window, judged: Mask, bad: Mask) -> Suspect:
    """The server that fits the same pairs, if those are calls that only the suspect makes."""
    if suspect.component.kind in ("link", "node_link"):
        return suspect
    fails = suspect.covers & bad
    calls = window.calls > 0
    is_link = len(suspect.component.ends) > 1
    sends = suspect.covers if is_link else pairs_of(suspect.component, "sending", window)
    if (fails & ~(sends & calls)).any():
        return suspect
    called = [window.endpoints[at] for at in np.unique(window.dst[fails]).tolist()]
    server = _one_of(called, window)
    if server is None or server == suspect.component:
        return suspect
    receives = pairs_of(server, "receiving", window)
    if (receives & calls & judged & ~fails).any():  # others that call it have no trouble
        return suspect
    others = tuple(each for each in suspect.alternatives if each != server)
    return replace(
        suspect,
        component=server,
        direction="receiving",
        covers=receives & calls,
        alternatives=(suspect.component, *others),
    )


def _one_of(called: Sequence[Endpoint], window: Window) -> Component | None:
    """What the called ends are together."""
    if len(called) == 1:
        return component_of(called[0])
    groups = _groups(set(called), window)
    return next((each for each, pods in groups if pods == set(called)), None)

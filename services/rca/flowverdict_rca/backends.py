"""Attributes what callers of a service suffer to the pod behind it that is broken.

A caller's flows go to the service's address, whichever pod answers; the pod's own flows show which
one it is, or that it has none. Otherwise one broken pod would be two causes: the pod, and the
service.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from flowverdict_flows.components import component_of
from flowverdict_flows.endpoint import Endpoint
from flowverdict_flows.pairs import Numbers
from flowverdict_rca.roles import Roles
from flowverdict_rca.window import Window, total

__all__ = ["attribute_to_backends"]

_BROKEN = 0.5
"""A pod is broken if this share of what it sends, or of what it receives, fails."""
_MANY = 10
"""As many connections as a pod has that is tried like the others are not all missing by chance."""
_HARDLY = 0.25
"""A pod hardly answers with less than this share of the connections of another."""
_REPEATED = 4
"""An attempt repeats its SYN so often in a window, at most (RFC 6298, from one second on)."""
_ABOUT = 2.0
"""What is tried at random is within this factor of the same for each."""

Mask = npt.NDArray[np.bool_]


def attribute_to_backends(window: Window, roles: Roles, failing: Mask, ok: Mask) -> Roles:
    """The roles with a broken pod in the place of its service.

    Args:
        window: what is judged.
        roles: every role in it.
        failing, ok: which pairs fail, and which are OK.
    """
    for at in np.unique(np.concatenate([window.src[failing], window.dst[failing]])).tolist():
        service = window.endpoints[at]
        pods = window.facts.backends.get(service)
        if not pods:
            continue
        calls = failing & ((window.src == at) | (window.dst == at))
        broken = _only_broken(window, pods, failing, ok)
        instead = [broken] if broken is not None else _unanswering(window, pods, calls)
        if instead:
            roles = _replaced(roles, service, instead, calls)
    return roles


def _only_broken(
    window: Window, pods: frozenset[Endpoint], failing: Mask, ok: Mask
) -> Endpoint | None:
    """The one of these pods that is broken, if others are seen to work."""
    broken, work = [], False
    for at, endpoint in enumerate(window.endpoints):
        if endpoint not in pods:
            continue
        sides: list[Numbers] = [window.src, window.dst]
        counts = [(int(failing[side == at].sum()), int(ok[side == at].sum())) for side in sides]
        if any(bad and bad >= _BROKEN * (bad + good) for bad, good in counts):
            broken.append(endpoint)
        elif any(good for _, good in counts):
            work = True
    return broken[0] if len(broken) == 1 and work else None


def _unanswering(window: Window, pods: frozenset[Endpoint], calls: Mask) -> list[Endpoint]:
    """Those of these pods that answer hardly anybody, if that is why calls of their service fail.

    Which pod was tried is not known of an attempt that nobody answers. But each has about the same
    share of them, and who fails to reach one reaches others.
    """
    failed, repeated = (
        total(window.panes, name)[:, calls].sum(axis=1)
        for name in ("failed_opens", "retransmitted_syns")
    )
    then = (failed + repeated) * 2 >= (failed + repeated).max()
    opens = total(window.panes, "opens")[then].sum(axis=0)
    position = {each: at for at, each in enumerate(window.endpoints)}
    by_pod, reached = {}, np.zeros(len(window.endpoints), np.int64)
    for pod in sorted(pods):
        at = position.get(pod, -1)
        asked = (window.dst == at) & (opens > 0) & (window.calls >= 0)
        accepted = (window.src == at) & (opens > 0) & (window.calls < 0)
        by_pod[pod] = max(int(opens[asked].sum()), int(opens[accepted].sum()))
        reached[window.src[asked]] = reached[window.dst[accepted]] = 1
    share = max(by_pod.values())
    silent = [pod for pod, count in by_pod.items() if count <= _HARDLY * share]
    answering = [count for count in by_pod.values() if count > _HARDLY * share]
    if share < _MANY or not silent or not reached[window.src[calls]].all():
        return []
    expected = len(silent) * sum(answering) / len(answering)
    # An attempt repeats its SYN several times before it fails.
    most = int(failed[then].sum() + repeated[then].sum())
    least = int(max(failed[then].sum(), repeated[then].sum() / _REPEATED))
    return silent if least / _ABOUT <= expected <= most * _ABOUT else []


def _replaced(roles: Roles, service: Endpoint, pods: Sequence[Endpoint], calls: Mask) -> Roles:
    """The roles of `service` in the pairs `calls` given to each of these pods."""
    own = component_of(service)
    number_of = {each: number for number, each in enumerate(roles.roles)}
    moved = calls[roles.pair]
    codes = []
    for pod in pods:
        to = np.arange(len(roles.roles))
        for number, (component, direction) in enumerate(roles.roles):
            if component == own:
                instead = (component_of(pod), direction)
                to[number] = number_of.setdefault(instead, len(number_of))
        codes.append(roles.pair << 32 | np.where(moved, to[roles.role], roles.role))
    code = np.unique(np.concatenate(codes))
    return Roles(list(number_of), code & 0xFFFFFFFF, code >> 32)

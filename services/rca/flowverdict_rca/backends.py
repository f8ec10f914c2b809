"""Attributes what callers of a service suffer to the one pod behind it that is broken.

A caller's flows go to the service's address, whichever pod answers; the pod's own flows show which
one it is. Otherwise one broken pod would be two causes: the pod, and the service.
"""

import numpy as np
import numpy.typing as npt

from flowverdict_flows.components import component_of
from flowverdict_flows.endpoint import Endpoint
from flowverdict_flows.pairs import Numbers
from flowverdict_rca.roles import Roles
from flowverdict_rca.window import Window

__all__ = ["attribute_to_backends"]

_BROKEN = 0.5
"""A pod is broken if this share of what it sends, or of what it receives, fails."""

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
        broken = _only_broken(window, window.facts.backends.get(service), failing, ok)
        if broken is not None:
            calls = failing & ((window.src == at) | (window.dst == at))
            roles = _replaced(roles, service, broken, calls)
    return roles


def _only_broken(
    window: Window, pods: frozenset[Endpoint] | None, failing: Mask, ok: Mask
) -> Endpoint | None:
    """The one of these pods that is broken, if others are seen to work."""
    if not pods:
        return None
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


def _replaced(roles: Roles, service: Endpoint, pod: Endpoint, calls: Mask) -> Roles:
    """The roles of `service` in the pairs `calls` given to `pod`."""
    own, instead = component_of(service), component_of(pod)
    number_of = {each: number for number, each in enumerate(roles.roles)}
    to = np.arange(len(roles.roles))
    for number, (component, direction) in enumerate(roles.roles):
        if component == own:
            to[number] = number_of.setdefault((instead, direction), len(number_of))
    moved = calls[roles.pair]
    role = np.where(moved, to[roles.role], roles.role)
    code = np.unique(roles.pair << 32 | role)
    return Roles(list(number_of), code & 0xFFFFFFFF, code >> 32)

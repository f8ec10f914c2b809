"""The dashboards, one per file."""

from flowverdict_provisioner.boards.history import HISTORY
from flowverdict_provisioner.boards.incident import INCIDENT
from flowverdict_provisioner.boards.link import LINK
from flowverdict_provisioner.boards.network_health import NETWORK_HEALTH
from flowverdict_provisioner.boards.node import NODE
from flowverdict_provisioner.boards.pipeline import PIPELINE
from flowverdict_provisioner.boards.pod import POD
from flowverdict_provisioner.boards.service import SERVICE
from flowverdict_provisioner.boards.verdicts import VERDICTS
from flowverdict_provisioner.boards.workload import WORKLOAD

__all__ = ["BOARDS"]

BOARDS = (
    VERDICTS,
    INCIDENT,
    NETWORK_HEALTH,
    WORKLOAD,
    POD,
    NODE,
    SERVICE,
    LINK,
    PIPELINE,
    HISTORY,
)
"""All of them, in the order in which they are listed."""

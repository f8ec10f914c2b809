"""The RCA worker's settings."""

from dataclasses import dataclass

from flowverdict_rca.detectors.statistical import DETECTORS
from flowverdict_runtime.service_settings import CommonSettings, listen_setting
from flowverdict_runtime.settings import Address, choice, integer, number, optional_text, setting

__all__ = ["LEARNED_DETECTORS", "RcaSettings"]

LEARNED_DETECTORS = ("dbscan", "classifier", "forecast")
"""Those that need the extra `detectors`."""


@dataclass(frozen=True, slots=True)
class RcaSettings(CommonSettings):
    """What the RCA worker reads from its environment."""

    cluster: str = setting(
        optional_text, "", "this cluster's name, for those who watch several: it is in each verdict"
    )
    fail_ratio: float = setting(
        number(0.0001, 1), "0.05", "a flow fails above this retransmission ratio"
    )
    detector: str = setting(
        choice("threshold", *DETECTORS, *LEARNED_DETECTORS),
        "threshold",
        "what finds a flow's ratio too high: the threshold, or its own past (docs/verdicts.md)",
    )
    labelled_ratios: str = setting(
        optional_text, "", "a CSV file of usual_ratio, ratio and fails (1 or 0) for the classifier"
    )
    min_retransmissions: int = setting(
        integer(1, 1_000_000),
        "3",
        "a flow needs this many retransmitted segments, or failed connects, in a window to fail",
    )
    min_segments: int = setting(
        integer(1, 1_000_000),
        "20",
        "a flow needs this many data segments and connects in a window to be OK",
    )
    pane_seconds: float = setting(number(1, 3600), "2", "how often windows are judged")
    window_panes: int = setting(integer(1, 100), "5", "panes in the window that is judged")
    open_after: int = setting(
        integer(1, 100), "3", "windows in a row that must blame the same cause to open an incident"
    )
    resolve_after: int = setting(
        integer(1, 100), "3", "windows in a row without the cause before an incident is resolved"
    )
    lateness_seconds: float = setting(
        number(0, 3600), "10", "how long to wait for a slow node before a window is judged"
    )
    miner: str = setting(
        choice("apriori", "fpgrowth"),
        "apriori",
        "what finds the frequent itemsets behind the rules",
    )
    listen: Address = listen_setting("rca")

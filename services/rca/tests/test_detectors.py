"""Detectors: which retransmission ratio is too high for a pair, by its past."""

import sys
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import norm

from conftest import flow_row, window_of
from flowverdict_contracts.verdicts import Verdict
from flowverdict_rca.detectors import statistical
from flowverdict_rca.detectors.history import RatioHistory, detector_of
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.window_judge import WindowJudge
from flowverdict_runtime.context import CannotRun
from flowverdict_runtime.settings import load

PODS = {f"pod-{letter}": f"worker{index // 2}" for index, letter in enumerate("abcdef")}
PAIRS = list(permutations(PODS, 2))
NAMES = (
    "z-score",
    "moving-average",
    "percentile",
    "probability",
    "dbscan",
    "classifier",
    "forecast",
)


@pytest.fixture
def labelled(tmp_path: Path) -> str:
    """A pair that loses three times its usual share and 1% more fails."""
    path = tmp_path / "labelled.csv"
    random = np.random.default_rng(1)
    usual, ratio = random.uniform(0, 0.1, 500), random.uniform(0, 0.2, 500)
    rows = zip(usual, ratio, strict=True)
    lines = [f"{u:.4f},{r:.4f},{int(r > 3 * u + 0.01)}" for u, r in rows]
    path.write_text("\n".join(["usual_ratio,ratio,fails", *lines]))
    return str(path)


def settings_of(name: str, labelled: str = "") -> RcaSettings:
    chosen = {"FLOWVERDICT_DETECTOR": name, "FLOWVERDICT_LABELLED_RATIOS": labelled}
    return load(RcaSettings, chosen)


class Mesh:
    """Pods of which one loses some of what it is sent, window by window."""

    def __init__(self, settings: RcaSettings) -> None:
        self.settings = settings
        self.judge = WindowJudge(settings)
        self._random = np.random.default_rng(1)
        self._second = 1_000

    def passes(self, windows: int, lossy: str = "", percent: int = 0) -> list[Verdict]:
        return [each for _ in range(windows) for each in self._judged(lossy, percent)]

    def _judged(self, lossy: str, percent: int) -> Iterator[Verdict]:
        rows = []
        for src, dst in PAIRS:
            lost = self._random.binomial(2000, 0.002) + (20 * percent if dst == lossy else 0)
            ends = (f"{each}@{PODS[each]}" for each in (src, dst))
            rows.append(flow_row(*ends, data_segments_sent=2000, retransmitted_segments=int(lost)))
        self._second += 2
        yield from self.judge.judge(window_of(rows, settings=self.settings, second=self._second))


@pytest.mark.parametrize("name", NAMES)
def test_a_pod_that_loses_more_than_ever_is_named_below_the_threshold(
    name: str, labelled: str
) -> None:
    mesh = Mesh(settings_of(name, labelled))
    assert mesh.passes(60) == []
    opened = mesh.passes(4, "pod-b", percent=3)[0]
    assert opened.causes[0].name == "default/pod-b"
    assert opened.conditions == ("HIGH_RETRANSMISSION_RATIO",)
    assert "3.2% of the data segments are retransmitted" in opened.summary


def test_the_threshold_does_not_ask_for_the_past() -> None:
    mesh = Mesh(settings_of("threshold"))
    assert mesh.passes(64, "pod-b", percent=3) == []
    assert mesh.passes(4, "pod-b", percent=6)[0].causes[0].name == "default/pod-b"


@pytest.mark.parametrize("name", NAMES)
def test_what_a_pod_has_always_lost_is_normal_and_the_threshold_holds_until_that_is_known(
    name: str, labelled: str
) -> None:
    mesh = Mesh(settings_of(name, labelled))
    assert mesh.passes(120, "pod-b", percent=4) == []
    assert Mesh(settings_of(name, labelled)).passes(4, "pod-b", percent=6)


def test_the_limits_are_those_of_the_formulas() -> None:
    random = np.random.default_rng(2)
    past = random.uniform(0.01, 0.09, (40, 5))
    past[:7, 1] = np.nan
    for at in range(5):
        known = past[~np.isnan(past[:, at]), at]
        mean, deviation = known.mean(), known.std()
        recent = past[-12:, at]
        expected = {
            "z-score": mean + 3 * deviation,
            "moving-average": recent.mean() + 3 * recent.std(),
            "percentile": np.percentile(known, 95),
            "probability": norm(mean, deviation).isf(0.001),
        }
        for name, limit in expected.items():
            assert statistical.DETECTORS[name](past)[at] == pytest.approx(limit)


def test_a_cluster_of_ratios_is_normal_wherever_it_is(labelled: str) -> None:
    def limits(name: str, past: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        detector = detector_of(settings_of(name, labelled))
        assert detector is not None
        return detector(past)

    past = np.full((30, 4), 0.07)
    past[:, 3] = 0.4
    assert limits("dbscan", past) == pytest.approx(past[0])
    assert (limits("classifier", past)[:3] > 0.1).all()
    assert limits("forecast", past) == pytest.approx(past[0] + 3 * 0.003)
    assert np.isnan(limits("dbscan", np.full((30, 4), np.nan))).all()
    assert np.isnan(limits("classifier", np.full((30, 4), np.nan))).all()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("ratio,fails\n0.1,1\n", "needs the columns usual_ratio, ratio, fails"),
        ("usual_ratio,ratio,fails\n0,0.1,1\n", "rows that do not (0)"),
        ("usual_ratio,ratio,fails\n0,0.1,yes\n", "could not convert"),
        (None, "No such file"),
    ],
)
def test_a_file_that_teaches_nothing_is_told_at_the_start(
    tmp_path: Path, content: str | None, words: str
) -> None:
    path = tmp_path / "ratios.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CannotRun, match="FLOWVERDICT_LABELLED_RATIOS") as raised:
        RatioHistory(settings_of("classifier", str(path)))
    assert words in str(raised.value)
    with pytest.raises(CannotRun, match="needs FLOWVERDICT_LABELLED_RATIOS"):
        RatioHistory(settings_of("classifier"))


def test_a_detector_whose_library_is_missing_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "flowverdict_rca.detectors.learned", raising=False)
    monkeypatch.delattr("flowverdict_rca.detectors.learned", raising=False)
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(CannotRun, match=r"pip install 'flowverdict-rca\[detectors\]'"):
        RatioHistory(settings_of("dbscan"))

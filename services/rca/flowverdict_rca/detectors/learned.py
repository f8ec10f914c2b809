"""Detectors that learn, with libraries of the extra `detectors`; `statistical` says what they are.

Raises ImportError if those are not installed.
"""

import csv
import warnings
from pathlib import Path

import numpy as np
from sklearn.cluster import DBSCAN
from sklearn.tree import DecisionTreeClassifier
from statsmodels.tsa.arima.model import ARIMA

from flowverdict_rca.detectors.statistical import Detector, Floats, moving_average, usual

__all__ = ["classifier", "dbscan", "forecast"]

_NEAR = 0.01
_NEIGHBOURS = 10
_DIGITS = 4
_DEPTH = 8
_GRID = np.linspace(0, 1, 1001)
_MOST_FORECAST = 100
_ALPHA = 0.002  # two-sided
_VARIES = 1e-6
_COLUMNS = ("usual_ratio", "ratio", "fails")


def dbscan(past: Floats) -> Floats:
    """What is above the cluster of ratios that a pair's usual one is in, or the largest if it is in
    none (DBSCAN: Ester et al., KDD 1996).

    Ratios within 0.01 of ten others, of any pairs, are in one cluster with them.
    """
    ratios, counts = np.unique(np.round(past[~np.isnan(past)], _DIGITS), return_counts=True)
    means = usual(past)
    if not ratios.size:
        return means
    labels = DBSCAN(eps=_NEAR, min_samples=_NEIGHBOURS).fit_predict(
        ratios[:, None], sample_weight=counts
    )
    clusters = labels >= 0
    if not clusters.any():
        return np.full_like(means, np.nan)
    largest = np.bincount(labels[clusters], counts[clusters]).argmax()
    at = np.minimum(np.searchsorted(ratios, np.round(means, _DIGITS)), len(ratios) - 1)
    own = np.where(labels[at] < 0, largest, labels[at])
    tops = np.array([ratios[labels == label].max() for label in range(labels.max() + 1)])
    found: Floats = np.where(np.isnan(means), np.nan, tops[own])
    return found


def forecast(past: Floats) -> Floats:
    """What is above the 99.9% prediction of an autoregressive model, ARIMA(1, 0, 0) (Box and
    Jenkins, 1970), for the hundred pairs that vary most; the others have their moving average.
    """
    found = moving_average(past)
    with warnings.catch_warnings(action="ignore"):  # what does not converge is not used
        deviations = np.nan_to_num(np.nanstd(past, axis=0))
        for at in np.argsort(-deviations)[:_MOST_FORECAST].tolist():
            if deviations[at] > _VARIES:
                fitted = ARIMA(past[:, at], order=(1, 0, 0)).fit()
                upper = float(fitted.get_forecast(1).conf_int(alpha=_ALPHA)[0, 1])
                found[at] = upper if np.isfinite(upper) else found[at]
    return found


def classifier(path: Path) -> Detector:
    """What a decision tree (CART: Breiman et al., 1984) calls failing, trained on labelled ratios.

    Args:
        path: a CSV file with the columns `usual_ratio`, the mean of a pair before, `ratio`, and
            `fails`, 1 or 0.

    Raises:
        OSError, ValueError: if it cannot be read, or holds something else.
    """
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        try:
            table = np.array([[float(row[name]) for name in _COLUMNS] for row in rows])
        except (KeyError, TypeError, csv.Error) as error:
            raise ValueError(f"{path} needs the columns {', '.join(_COLUMNS)}: {error!r}") from None
    if not len(table) or len(np.unique(table[:, 2])) < 2 or not np.isin(table[:, 2], (0, 1)).all():
        raise ValueError(f"{path} needs rows that fail (1) and rows that do not (0)")
    tree = DecisionTreeClassifier(max_depth=_DEPTH, random_state=0)
    tree.fit(table[:, :2], table[:, 2])

    def detect(past: Floats) -> Floats:
        own = usual(past)
        means, at = np.unique(np.round(np.nan_to_num(own), _DIGITS), return_inverse=True)
        pairs = np.column_stack([np.repeat(means, len(_GRID)), np.tile(_GRID, len(means))])
        fails = tree.predict(pairs).reshape(len(means), len(_GRID)) > 0
        limits = np.where(fails.any(axis=1), _GRID[fails.argmax(axis=1)], 1.0)
        found: Floats = np.where(np.isnan(own), np.nan, limits[at])
        return found

    return detect

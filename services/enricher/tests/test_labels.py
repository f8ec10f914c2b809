"""Which labels of pods are dimensions of their flows."""

import pytest

from flowverdict_enricher.labels import labels_text
from flowverdict_enricher.settings import EnricherSettings
from flowverdict_runtime.settings import SettingsError, load


def chosen(text: str) -> tuple[str, ...]:
    return load(EnricherSettings, {"FLOWVERDICT_LABELS": text}).labels


def test_labels_are_chosen_by_their_keys_in_the_order_given() -> None:
    assert chosen("") == ()
    assert chosen(" team, app.kubernetes.io/version,team") == ("team", "app.kubernetes.io/version")


@pytest.mark.parametrize("text", ["team=payments", "a b", "a/b/c", "-team", "Example.com/team"])
def test_what_cannot_be_the_key_of_a_label_is_refused_with_its_name(text: str) -> None:
    with pytest.raises(SettingsError, match="FLOWVERDICT_LABELS"):
        chosen(text)


def test_of_a_pod_only_the_chosen_labels_are_named() -> None:
    labels = {"team": "payments", "tier": "", "version": "2", "other": "x"}
    assert labels_text(labels, ("version", "team", "tier", "absent")) == "version=2,team=payments"


def test_a_value_that_would_look_like_another_label_is_left_out() -> None:
    assert labels_text({"a": "1,b=2", "c": "3"}, ("a", "b", "c")) == "c=3"

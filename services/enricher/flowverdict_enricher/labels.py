"""Labels of pods that an operator has chosen as dimensions of their flows."""

import re
from collections.abc import Mapping, Sequence

from flowverdict_runtime.settings import Parser

__all__ = ["label_keys", "labels_text"]

# kubernetes.io/docs/concepts/overview/working-with-objects/labels, "Syntax and character set"
_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY = re.compile(rf"([a-z0-9]([-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_NAME}", re.ASCII)


def _parse(value: str) -> tuple[str, ...]:
    keys = tuple(dict.fromkeys(each.strip() for each in value.split(",") if each.strip()))
    if not all(map(_KEY.fullmatch, keys)):
        raise ValueError
    return keys


label_keys = Parser("keys of labels, separated by commas", _parse)


def labels_text(labels: Mapping[str, str], keys: Sequence[str]) -> str:
    """`KEY=VALUE` of each of these labels that are set, separated by commas.

    A value with a comma, which Kubernetes does not allow but Docker does, is left out.
    """
    values = ((key, labels.get(key, "")) for key in keys)
    return ",".join(f"{key}={value}" for key, value in values if value and "," not in value)

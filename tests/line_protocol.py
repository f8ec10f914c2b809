"""A parser of InfluxDB's line protocol, independent of what writes it."""

import re

__all__ = ["Line", "parse"]

Line = tuple[str, dict[str, str], dict[str, str], int]


def parse(line: str) -> Line:
    """Measurement, tags, fields and time of a line."""
    head, rest = _cut(line, " ")
    fields, _, time = rest.rpartition(" ")
    measurement, tags = _cut(head, ",")
    return measurement, _pairs(tags), _pairs(fields), int(time)


def _cut(text: str, separator: str) -> tuple[str, str]:
    found = re.match(rf"((?:[^\\{separator}]|\\.)*){separator}?(.*)", text, re.DOTALL)
    assert found
    return found[1], found[2]


def _pairs(text: str) -> dict[str, str]:
    pairs = {}
    while text:
        pair, text = _cut(text, ",")
        name, value = _cut(pair, "=")
        pairs[name] = re.sub(r"\\([,= ])", r"\1", value)
    return pairs

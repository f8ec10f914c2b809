"""How long each owner has had an address.

Pod `a` is deleted, and later pod `b` is given its address:

    tenures      |------- a -------|              |------- b ------->
    intervals         |--|      |-----|    |--|      |--|
    named              a           a        b         b
    confidence      certain     likely    likely   certain

- An interval inside a tenure is certain. One that reaches beyond its end, or spans two, has the
  owner of its longest part and is only likely.
- Between tenures it is the nearest owner: the one before, which is gone, or the one after if it
  begins within 60 s, since the API reports a new pod late.
- Updates can arrive out of order. If `a` is reported only after `b` has begun, its tenure ends
  where that of `b` begins; if `b` has already ended as well, `a` begins again after it.
"""

from dataclasses import dataclass, replace

from flowverdict_contracts.enriched import Names

__all__ = ["GRACE_NS", "KEEP_NS", "STILL", "Tenure", "Tenures", "begun", "ended", "holder_in"]

STILL = (1 << 63) - 1
_SECOND = 1_000_000_000
GRACE_NS = 60 * _SECOND
KEEP_NS = 2 * 3600 * _SECOND


@dataclass(frozen=True, slots=True)
class Tenure:
    """How long one owner had an address: until `STILL` if it has it now."""

    owner: str
    names: Names
    from_ns: int
    until_ns: int


Tenures = tuple[Tenure, ...]
"""Those of one address, which do not overlap."""


def begun(tenures: Tenures, owner: str, names: Names, from_ns: int) -> Tenures:
    """With `owner` having the address since `from_ns`, unless another came later."""
    kept: list[Tenure] = []
    until_ns = STILL
    from_ns = max(from_ns, _free_since(tenures, owner, from_ns))
    for each in tenures:
        if each.owner == owner and each.until_ns >= from_ns:
            from_ns = min(from_ns, each.from_ns)
            continue
        if each.owner != owner and each.from_ns > from_ns:
            # A late update about an earlier owner: the later owner keeps the address.
            until_ns = min(until_ns, each.from_ns)
            kept.append(each)
            continue
        overlaps = each.until_ns > from_ns and each.owner != owner
        ends_ns = max(from_ns, each.from_ns) if overlaps else each.until_ns
        kept.append(replace(each, until_ns=ends_ns))
    return (*kept, Tenure(owner, names, from_ns, until_ns))


def ended(tenures: Tenures, owner: str, at_ns: int) -> Tenures:
    """With `owner` having given the address up at `at_ns`."""
    return tuple(
        replace(each, until_ns=max(at_ns, each.from_ns))
        if each.owner == owner and each.until_ns > at_ns
        else each
        for each in tenures
    )


def holder_in(tenures: Tenures, start_ns: int, end_ns: int) -> tuple[Names | None, Tenure | None]:
    """Who had the address in the interval, for the longest part of it if it changed hands, or who
    is nearest; None if nobody. Then that owner's tenure, if the whole interval is within it.
    """
    best, longest = None, -1
    for each in tenures:
        overlap = min(end_ns, each.until_ns) - max(start_ns, each.from_ns)
        if overlap > longest:
            best, longest = each, overlap
    if best is None:
        best = _nearest(tenures, start_ns, end_ns)
    elif best.from_ns <= start_ns and end_ns <= best.until_ns:
        return best.names, best
    return (_likely(best, end_ns) if best else None), None


def _likely(tenure: Tenure, end_ns: int) -> Names:
    has_ended = tenure.until_ns < end_ns
    condition = "gone" if has_ended else tenure.names.condition
    return replace(tenure.names, name_confidence="likely", condition=condition)


def _nearest(tenures: Tenures, start_ns: int, end_ns: int) -> Tenure | None:
    """The next owner, if it begins soon: the API reports it late. Else the last one, for as long as
    it is remembered: others may dial its address long after its end.
    """
    best, nearest = None, KEEP_NS
    for each in tenures:
        early, late = each.from_ns - end_ns, start_ns - each.until_ns
        distance = late if early <= 0 else early if early <= GRACE_NS else KEEP_NS + 1
        if distance <= nearest:
            best, nearest = each, distance
    return best


def _free_since(tenures: Tenures, owner: str, from_ns: int) -> int:
    """When `owner` can have got it: not before a younger owner, now gone, gave it up."""
    mine = [each.from_ns for each in tenures if each.owner == owner and each.until_ns == STILL]
    gone = [
        each.until_ns
        for each in tenures
        if each.owner != owner and from_ns < each.from_ns and each.until_ns < STILL
    ]
    return max(mine or gone, default=from_ns)

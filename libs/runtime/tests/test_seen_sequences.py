"""Which messages were handled already."""

from hypothesis import given
from hypothesis import strategies as st

from flowverdict_runtime.consumer import SeenSequences


@given(st.integers(0, 1000), st.lists(st.integers(1, 300)))
def test_what_was_added_or_lies_below_the_floor_is_seen_and_nothing_else(
    floor: int, offsets: list[int]
) -> None:
    seen, model = SeenSequences(floor), set()
    for offset in offsets:
        assert (floor + offset in seen) == (floor + offset in model)
        seen.add(floor + offset)
        model.add(floor + offset)
    assert floor in seen
    for offset in range(1, 301):
        assert (floor + offset in seen) == (floor + offset in model)


@given(st.lists(st.integers(1, 10_000), min_size=1))
def test_memory_stays_below_the_limit_and_what_is_new_at_the_top_stays_new(
    sequences: list[int],
) -> None:
    seen = SeenSequences(0, limit=10)
    for sequence in sequences:
        seen.add(sequence)
        assert len(seen._above) <= 10
    assert max(sequences) + 1 not in seen

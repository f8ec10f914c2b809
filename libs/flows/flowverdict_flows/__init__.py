"""The services' common model of flows.

`endpoint`    who is at one end of a flow.
`components`  what can be at fault for a pair of endpoints, and in which direction.
`ratios`      the two retransmission ratios; needs neither numpy nor Arrow.
`batches`     raw records to an enriched batch (needs the extra `tables`).
`name_table`  addresses with their names, kept as columns (extra `tables`).
`continuity`  which messages of a node never came.
`half_open`   connection requests that never completed (extra `tables`).
`pair_index`  rows of enriched batches grouped by pair (extra `tables`).
`pairs`       their sums by pair, of labels or of endpoints (extra `tables`).
"""

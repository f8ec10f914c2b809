"""Judges which component is behind failing flows: `flows.enriched` in, `rca.verdicts` out.

`server`     the service's life; `state` what it keeps in NATS so that a restart forgets nothing.
`panes`      enriched rows to sums by pair of endpoints and pane of time; decides when one is whole.
`pairs`      a window's pairs and whether each is OK or FAIL.
`mining`     association rules over pairs (Apriori).
`ranking`    the components that explain the failing pairs.
`incidents`  rankings over time to verdicts: opened, ongoing, resolved.
`wording`    the sentence a person reads.
`offline`    the commands `fetch` and `analyse`.
"""

"""What Flowverdict services must agree on, and nothing else.

`subjects`         NATS streams and subjects.
`interval_header`  the headers of flow messages: node, interval, losses.
`kernel_reports`   what a node's kernel log says, in one of them.
`raw`              the collector's messages: the layout of a flow record.
`raw_records`      their bodies as numpy arrays (needs the extra `columns`).
`byte_columns`     how the collector packs them.
`numbered_texts`   what follows a raw message's records: names that they refer to by number.
`looked_up_names`  the names of DNS lookups as text.
`enriched`         the enricher's messages: Arrow tables with names (extra `columns`).
`arrow_size`       the unpacked size of an Arrow stream (extra `columns`).
`signals`          what is exported for each pair: metrics, fields in InfluxDB.
`verdicts`         the RCA worker's messages: JSON documents.
`addresses`        addresses as stored in raw records.
`timestamps`       times as text.
"""


class MalformedMessage(ValueError):
    """A message that does not match the contract of its subject."""

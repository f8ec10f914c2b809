"""What two Flowverdict services must agree on, and nothing else.

`subjects`         NATS streams and subjects.
`interval_header`  the headers of messages with flows: node, interval, losses.
`raw`              the collector's messages: the layout of a flow record.
`raw_records`      their bodies as numpy arrays (needs the extra `columns`).
`enriched`         the enricher's messages: Arrow tables with names (extra `columns`).
`arrow_size`       how large an Arrow stream is once unpacked (extra `columns`).
`signals`          what leaves the pipeline of each pair: metrics, fields in InfluxDB.
`verdicts`         the RCA worker's messages: JSON documents.
`addresses`        addresses as raw records hold them.
`timestamps`       times as text.
"""


class MalformedMessage(ValueError):
    """A message on one of our subjects that is not what its subject promises."""

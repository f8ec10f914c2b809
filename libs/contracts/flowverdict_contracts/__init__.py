"""What two Flowverdict services must agree on, and nothing else.

`subjects`  NATS streams and subjects.
`header`    the headers of messages with flows: node, interval, rows lost.
`addresses` addresses as raw records hold them.
`raw`       the collector's messages: packed flow records.
`columns`   raw records as numpy columns (needs the extra `columns`).
`enriched`  the enricher's messages: Arrow tables with names (extra `columns`).
`verdicts`  the RCA worker's messages: JSON documents.
"""


class MalformedMessage(ValueError):
    """A message on one of our subjects that is not what its subject promises."""

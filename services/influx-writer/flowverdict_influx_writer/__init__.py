"""Writes to InfluxDB 2: `flows.enriched` and `rca.verdicts` in, points out.

`server`    the service.
`writing`   writes every message once, also over `kill -9`.
`slots`     sums of ten seconds; `points` makes lines of the line protocol of them.
`progress`  how far the flows are written, kept in NATS.
`database`  lines of many messages in one request, repeated until InfluxDB has stored them.
`client`    write requests to InfluxDB, and what its refusals mean.
`written`   which verdicts have been written, kept in NATS.
`store_size`  how much InfluxDB has stored.
`check`     `--check`: whether InfluxDB would accept points.
"""

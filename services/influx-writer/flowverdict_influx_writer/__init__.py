"""Writes to InfluxDB 2: `flows.enriched` and `rca.verdicts` in, points out.

`server`    the service.
`points`    messages as lines of the line protocol.
`database`  lines of many messages in one request, repeated until InfluxDB has stored them.
`client`    write requests to InfluxDB, and what its refusals mean.
`written`   which verdicts have been written, kept in NATS.
`store_size`  how much InfluxDB has stored.
`check`     `--check`: whether InfluxDB would accept points.
"""

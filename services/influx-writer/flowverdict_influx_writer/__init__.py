"""Writes to InfluxDB 2: `flows.enriched` and `rca.verdicts` in, points out.

`server`    the service.
`points`    messages as lines of the line protocol.
`database`  InfluxDB: writing with retries.
`check`     `--check`: whether InfluxDB would accept points.
"""

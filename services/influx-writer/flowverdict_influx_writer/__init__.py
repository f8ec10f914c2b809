"""Writes to InfluxDB 2: `flows.enriched` and `rca.verdicts` in, points out.

`server`    the service's life.
`points`    messages as lines of the line protocol.
`database`  InfluxDB: its bucket, and writing until it is stored.
`check`     `--check`: whether InfluxDB answers.
"""

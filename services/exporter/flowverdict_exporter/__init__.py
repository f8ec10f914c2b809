"""Serves named flows to Prometheus on 9191: `flows.enriched` in, /metrics out.

`server`   the service's life.
`series`   sums by pair of addresses.
`text`     how they are written out.
`incidents` open incidents as metrics.
`nodes`    what came from each node.
"""

"""Serves named flows to Prometheus on 9191: `flows.enriched` in, /metrics out.

`server`   the service.
`adding`   adds up every message once, also over `kill -9`.
`kept`     what it keeps in NATS: the totals, and up to which message they go.
`series`   what is summed by pair of addresses and what by sender, and the page.
`sums`     sums of some metrics by pair, within a budget.
`family`   one metric: how rows become its sums, and how those are written out.
`incidents` open incidents as metrics.
`past_incidents` those that are resolved; `incident_labels` their causes, and what they explain.
`lookups`  DNS lookups by pod and name.
`services` the addresses behind each service.
`nodes`    each node: when it last reported, and what it lost.
`nats_servers` each NATS server.
"""

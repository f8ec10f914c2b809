"""`flowverdict-doctor`: a line for each thing it checks: ok, warning or broken, with what to do.

`command`  the command line.
`finding`  one line.
`node`     kernel, BTF, tracefs, headers, capabilities, the collector itself.
`streams`  NATS: its streams, their consumers, and how far those are behind.
`cluster`  Kubernetes: the enricher's permissions, Flowverdict's pods.
`stores`   services, Prometheus' targets, InfluxDB's bucket, Grafana.
"""

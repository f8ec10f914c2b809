"""`flowverdict-doctor`: a line for each thing it checks: ok, warning or broken, with what to do.

`command`  the command line.
`finding`  the result of one check.
`node`     kernel, BTF, tracefs, headers, capabilities, the collector itself.
`streams`  NATS: its streams, their consumers, and how far those are behind.
`cluster`  Kubernetes: the enricher's permissions, Flowverdict's pods.
`stores`   the services, Prometheus targets and rules, the InfluxDB bucket, Grafana.
"""

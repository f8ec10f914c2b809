"""`flowverdict-doctor`: each line ok, warning or broken, with what to do.

`node`      kernel, BTF, tracefs, headers, capabilities, the collector itself.
`streams`   NATS: its streams, who reads them, and how far behind.
`cluster`   what the enricher may read in Kubernetes.
`stores`    services, Prometheus' targets, InfluxDB's bucket, Grafana.
"""

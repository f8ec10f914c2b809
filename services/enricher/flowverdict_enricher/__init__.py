"""Gives flows their Kubernetes names: `flows.raw.>` in, `flows.enriched` out.

`server`      the service's life: a source of names, then one enriched message a raw one.
`directory`   who had an address, and when.
`enrich`      raw records and a directory to an Arrow batch, column by column.
`inventory`   names from a file; `kubernetes` from a cluster's API; `containers` from Docker.
"""

"""Puts Flowverdict's data sources, dashboards and alert rules into Grafana.

`command`   what the command does.
`boards`    the dashboards, declared (`declare`); `build` makes Grafana's JSON of them.
`sources`   the data sources.
`alerts`    Prometheus' alert rules as Grafana's.
`grafana`   compares with what Grafana has (`difference`), and changes what differs.
"""

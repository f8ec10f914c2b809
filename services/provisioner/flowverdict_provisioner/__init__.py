"""Puts Flowverdict's data sources, dashboards and alert rules into Grafana.

`command`         what the command does.
`boards`          the dashboards, each in a file.
`board`           what a dashboard is made of: panels, queries, variables.
`promql`          queries that panels share.
`dashboard_json`  a dashboard as Grafana's JSON; `panel_kinds` is what differs by kind of panel.
`sources`         the data sources.
`alerts`          Prometheus' alert rules as Grafana's.
`grafana`         compares with what Grafana has, and changes what differs.
`difference`      what differs between two JSON documents.
"""

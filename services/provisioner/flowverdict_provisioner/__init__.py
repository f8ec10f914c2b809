"""Puts Flowverdict's data sources, dashboards and alert rules into Grafana.

`command`         the command line.
`boards`          the dashboards, each in a file.
`board`           the parts of a dashboard: panels, queries, variables.
`promql`          PromQL shared by the dashboards.
`flow_panels`     panels and columns about flows that several dashboards have.
`dashboard_json`  a dashboard as Grafana's JSON; `panel_kinds` has what is specific to each kind.
`sources`         the data sources.
`alerts`          Prometheus alert rules, converted to Grafana's.
`grafana`         compares with what Grafana has, and changes what differs.
`difference`      what differs between two JSON documents.
"""

"""The command `report`: one HTML file about one incident, read from NATS.

`command`     reads an incident and writes its page.
`gather`      the incident's verdicts and the flows around it.
`measure`     what the pictures show of each pair.
`page`        what goes into the template.
`next_steps`  commands to paste, and who suffers.
`map`         nodes and pods, and the flows between them.
`timeline`    the chart over time.
"""

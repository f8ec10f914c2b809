"""The command `report`: one HTML file about one incident, read from NATS.

`gather`   the incident's verdicts and the flows around it.
`page`     what the page says, and its template.
`picture`  the map of nodes and pods, and the timeline.
"""

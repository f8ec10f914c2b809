"""Shows live NATS messages: an overview, a table of one stream, or JSON lines.

`command`     the command line and the subscriptions.
`overview`    open incidents, the worst pairs, rates, silent nodes.
`table`       the live tables of one stream.
`keyboard`    the key that ends a live table.
`live_pairs`  the counts of each pair over the last ten seconds.
`rows`        messages as plain rows, for JSON.
"""

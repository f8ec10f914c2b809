"""Shows what passes on NATS: an overview, a live table of one stream, or JSON lines.

`command`     the command line and the subscriptions.
`overview`    open incidents, the worst pairs, rates, silent nodes.
`table`       the live tables of one stream.
`live_pairs`  what each pair counted in the last ten seconds.
`rows`        a message as plain rows, for JSON.
"""

"""Prints what passes on NATS: raw flows, named flows or verdicts, as a live table or JSON lines.

`command`  the command line and the subscription.
`rows`     a message to plain rows.
`table`    the live tables.
"""

"""What every Flowverdict service does the same way.

`settings`    environment variables to a frozen record, once, with clear errors.
`logs`        JSON lines on stderr; a line a minute where a fault repeats.
`health`      /healthz, /readyz and /metrics.
`service`     the command line and the life cycle around a service's own `run`.
`connection`  NATS: connect, make the streams, publish until stored.
`consumer`    a durable consumer that acknowledges what was handled.
"""

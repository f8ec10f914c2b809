"""What every Flowverdict service does the same way. Each module imports only those above it.

`terminal`          text from outside, made safe for a terminal.
`logs`              JSON lines on stderr; repeated faults are logged once a minute.
`settings`          environment variables to a frozen record, once, with clear errors.
`ports`             the port of each service.
`service_settings`  the settings that services share.
`ebpf`              bpf(2), capabilities and tracepoints.
`kubernetes_facts`  resources that are watched, why a pod is not ready.
`health`            /healthz, /readyz and /metrics.
`context`           a running service's health, and the signal to stop.
`lifecycle`         the command line and the life cycle around a service's own `run`.
`retry`             retrying what failed because something outside is unavailable.
`streams`           JetStream's streams: create them, publish until stored.
`nats_connection`   connect to NATS and stay connected.
`consumer`          a durable consumer: fetch, handle, acknowledge.
`one_shot`          NATS for a command that connects once and exits.
`stored_messages`   the messages that a stream holds now.
"""

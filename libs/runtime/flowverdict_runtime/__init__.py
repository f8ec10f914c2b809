"""What all Flowverdict services share. Each module imports only those above it.

`terminal`          untrusted text, made safe for a terminal.
`logs`              JSON lines on stderr; repeated faults are logged once a minute.
`left_out`          rows that cannot be true, counted by node and field.
`settings`          environment variables, parsed once into a frozen dataclass.
`ports`             the port of each service.
`service_settings`  the settings that services share.
`ebpf`              bpf(2), capabilities and tracepoints.
`kubernetes_facts`  which resources are watched, and why a pod is not ready.
`unfinished`        which message a service died of.
`health`            what keeps a service from being ready, and whether it is alive.
`http_server`       /healthz, /readyz and /metrics.
`context`           a running service's health, and the signal to stop.
`lifecycle`         the command line and the life cycle around a service's own `run`.
`retry`             retries while something external is unavailable.
`stream_faults`     what is wrong with a stream that somebody else set up, in words.
`streams`           JetStream's streams: create them, publish until stored.
`nats_connection`   connect to NATS and stay connected.
`stream_size`       how much of a stream NATS keeps, as metrics.
`consumer`          a durable consumer: fetch, handle, acknowledge.
`one_shot`          NATS for a command that connects once and exits.
`stored_messages`   the messages currently in a stream.
`following`         a stream, read in order without a consumer.
`kept_state`        what a service keeps in NATS to go on where it was.
"""

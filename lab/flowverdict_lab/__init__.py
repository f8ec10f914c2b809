"""A small cluster in network namespaces, faults for it, the demo and the experiment.

`cluster`             the lab's nodes and pods, and their addresses.
`network`             the cluster as namespaces, bridges and veth pairs on this machine.
`pod`                 what runs in a pod: an HTTP server, and calls to the other pods.
`faults`              what can be broken, a class and a file each; `delayer` holds packets back.
`pipeline`            NATS and the services as processes.
`recording`           raw messages with their timestamps, in a file.
`phases`              before, during and after a fault, and the verdicts on them.
`demo`                the command `flowverdict-demo`; `report` is what it prints.
`live_support`        whether this machine can run it live.
`experiment`          the command `flowverdict-experiment`, on a real cluster.
`kubernetes_objects`  the experiment's pods: created, waited for, removed.
`kubernetes`          a whole Kubernetes on this machine: the command `flowverdict-cluster`.
`kernels`             other kernels, booted for the tests: the command `flowverdict-kernels`.
`servers`             NATS, Prometheus and others, built from their modules.
`free_port`           finds a port for a server.
`arguments`           parsers for command-line values.
`interruption`        signals that end a command: it cleans up first.
"""

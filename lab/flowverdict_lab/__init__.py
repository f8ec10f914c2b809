"""A small cluster in network namespaces, faults for it, and the demo.

`cluster`     which nodes and pods there are, and their addresses.
`network`     the cluster as namespaces, bridges and veth pairs of this machine.
`pod`         what runs in a pod: an HTTP server and its traffic to the others.
`faults`      packet loss on a pod's, a node's or a link's interface.
`pipeline`    NATS and the services as processes.
`recording`   raw messages with their times, in a file.
`experiment`  phases before, during and after a fault, and what the pipeline said.
`demo`        the command `flowverdict-demo`; `report` is what it prints.
`machine`     whether this machine can run it live.
"""

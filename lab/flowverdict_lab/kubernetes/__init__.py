"""A whole Kubernetes on this machine: built from Go modules, each node in namespaces of its own.

`command`        the command `flowverdict-cluster`, which script/cluster runs.
`machine`        what this machine lacks for a cluster.
`build`          compiles the programs, once; `modules` locks what goes into them.
`cluster`        starts and ends a cluster.
`host`           a machine of it, as a process in namespaces of its own.
`control_plane`  what runs on the first machine.
`worker`         what runs on a node.
`credentials`    certificates and kubeconfigs.
`cgroups`        a cgroup for each node.
`relay`          carries connections from this machine to the API server.
`images`         images of single programs.
`docker`         takes the other images from a Docker engine.
`processes`      processes that outlive the command that started them.
"""

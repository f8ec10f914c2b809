"""Counts a node's TCP flows in the kernel with eBPF and publishes them on `flows.raw.<node>`.

`server`       the service: load, then publish once per interval.
`publisher`    publishes each message exactly once.
`progress`     how far that has got, kept in the kernel beside the counts.
`loader`       what runs in the kernel, loaded by a child process; `attach` is that process.
`takeover`     which programs count when one version follows another, and into which maps.
`privileges`   gives up what only that process needs.
`pins`         what stays in the kernel while no collector runs.
`removal`      whether Kubernetes is removing the collector, rather than replacing a pod.
`source`       the C text to run, and what identifies it.
`hooks`        the tracepoints, and the C function attached to each.
`definitions`  what the C program is compiled with; `btf` finds offsets in the kernel's structs.
`limits`       what this kernel shows only in part.
`refusals`     why a machine does not let eBPF programs run.
`intervals`    the times of intervals, though the wall clock may be set.
`kernel`       the maps, as the service sees them: swap, read and discard.
`names`        the names that were looked up.
`owners`       the pods whose sockets are on the node's own network.
`kernel_log`   what the kernel says about links and sockets in its log.
`namespaces`   which network namespaces are counted, on a kernel that several nodes share.
`check`        `--check`: what this machine provides and what is missing.
"""

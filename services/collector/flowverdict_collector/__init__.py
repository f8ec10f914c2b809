"""Counts a node's TCP flows in the kernel with eBPF and publishes them on `flows.raw.<node>`.

`server`       the service: load, then drain and publish once per interval.
`loader`       a child process that compiles and attaches the programs, and hands over their maps.
`hooks`        the tracepoints, and the C function attached to each.
`definitions`  what the C program is compiled with; `btf` finds offsets in the kernel's structs.
`intervals`    the times of intervals, though the wall clock may be set.
`kernel`       the maps, as the service sees them: swap and drain.
`namespaces`   which network namespaces are counted, on a kernel that several nodes share.
`check`        `--check`: what this machine provides and what is missing.
"""

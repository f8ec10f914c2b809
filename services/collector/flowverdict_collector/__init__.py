"""Counts a node's TCP flows in the kernel with eBPF and publishes them on `flows.raw.<node>`.

`server`      the service's life: load, then drain and publish once an interval.
`loader`      a child process that compiles and attaches the programs, hands their maps over, exits.
`kernel`      the maps, as the service sees them: swap and drain.
`definitions` what the C program is compiled with; `btf` finds the kernel's own offsets.
`check`       `--check`: what this machine gives and what is missing.
"""

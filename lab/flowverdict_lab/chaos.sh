#!/bin/sh
# Breaks a pod's or container's network for a while: packet loss and delay on its outgoing traffic.
#
#   chaos.sh LOSS_PERCENT DELAY_MS SECONDS [POD_UID]
#   chaos.sh remove [POD_UID]
#
# With POD_UID, runs in the network namespace of that pod, for which it must see the node's
# processes; otherwise in its own namespace. Uses netem if the kernel has it (tc-netem(8)).
# Otherwise, nftables drops incoming packets, without the delay: if nftables dropped outgoing
# packets, TCP would be notified immediately and would not count them as lost. Everything is
# restored at the end and on SIGTERM.

fail() { echo "chaos: $*" >&2; exit 1; }

# Kubernetes puts a pod's UID into the cgroup of its processes; under systemd, '_' replaces '-'.
# CRI-O's monitor process for the pod has the UID too, but it runs in the node's own network, which
# must stay intact.
process_of() {
    other=$(echo "$1" | tr - _)
    nodes=$(readlink /proc/1/ns/net || readlink /proc/self/ns/net)
    for process in /proc/[0-9]*; do
        if grep -qsE "pod($1|$other)" "$process/cgroup" \
            && [ "$(readlink "$process/ns/net" || echo "$nodes")" != "$nodes" ]; then
            echo "${process#/proc/}"
            return
        fi
    done
    fail "no process of pod $1 with its own network namespace on this node"
}

inside() { if [ -n "$pid" ]; then nsenter -t "$pid" -n "$@"; else "$@"; fi; }

remove() {
    inside tc qdisc del dev "$device" root 2>/dev/null || true
    inside nft delete table netdev flowverdict_chaos 2>/dev/null || true
}

[ $# -ge 1 ] || fail "usage: chaos.sh LOSS_PERCENT DELAY_MS SECONDS [POD_UID] | remove [POD_UID]"
if [ "$1" = remove ]; then uid=${2:-}; else uid=${4:-}; fi
pid=
if [ -n "$uid" ]; then pid=$(process_of "$uid"); fi
device=$(inside ip -o route show default | awk '{ for (i = 1; i < NF; i++) if ($i == "dev") { print $(i + 1); exit } }')
device=${device:-eth0}
if [ "$1" = remove ]; then
    remove
    exit 0
fi
per_mille=$(echo "$1" | awk '{ printf "%d", 10 * $1 + 0.5 }')
trap remove EXIT
trap 'exit 143' INT TERM
remove
if inside tc qdisc add dev "$device" root netem loss "$1%" delay "${2}ms" 2>/dev/null; then
    echo "chaos: netem on $device: loss $1%, delay $2 ms"
else
    inside nft -f - <<NFT || fail "this kernel has neither netem nor nftables"
table netdev flowverdict_chaos {
  chain ingress {
    type filter hook ingress device "$device" priority 0; policy accept;
    numgen random mod 1000 < $per_mille counter drop
  }
}
NFT
    echo "chaos: nftables on $device: $1% loss of incoming packets; this kernel has no netem"
fi
sleep "$3" &
wait $!
echo "chaos: fault removed"

#!/bin/sh
# The first process of a guest: runs the command that came with it, says how it ended and switches
# the machine off.
export PATH=/opt/flowverdict/bin:/usr/sbin:/usr/bin HOME=/root LC_ALL=C.UTF-8
mkdir -p /proc /sys /dev /run /tmp /root
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mkdir -p /dev/shm /dev/pts
mount -t tmpfs none /dev/shm
mount -t devpts none /dev/pts
# NATS reserves what its streams may grow to.
mount -t tmpfs -o size=8g none /tmp
mount -t cgroup2 none /sys/fs/cgroup
mount -t bpf none /sys/fs/bpf
mount -t tracefs none /sys/kernel/tracing
mount -t securityfs none /sys/kernel/security 2>/dev/null
ip link set lo up
hostname guest
echo "guest: $(uname -rm), $(cut -d ' ' -f 1 /proc/uptime) s after power on"
cd /opt/flowverdict/checkout || exit
PYTHONPATH=/opt/flowverdict/site
for project in libs/* services/* lab; do PYTHONPATH=$PYTHONPATH:$PWD/$project; done
export PYTHONPATH PYTHONDONTWRITEBYTECODE=1
# To a pipe: on a terminal, pytest redraws its lines.
{ sh ../command; echo "guest: exit $?"; } 2>&1 | cat
echo o >/proc/sysrq-trigger
sleep 60

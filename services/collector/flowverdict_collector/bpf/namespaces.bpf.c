// SPDX-License-Identifier: GPL-2.0
/*
 * Which network namespaces belong to this node, on a kernel that several nodes
 * share (kind, k3d). Compiled together with flows.bpf.c, attached only in a
 * container whose parent process namespace is not the kernel's first.
 *
 * A node's processes are in its process namespace or in namespaces below it,
 * and a container's process namespace is a child of its node's. So whoever has
 * the parent of the collector's own process namespace among its ancestors runs
 * on this node, and the network namespace that it uses is this node's.
 */

#define OF_THIS_NODE 1
#define OF_ANOTHER 2
#define MAX_DEPTH 8 /* of process namespaces; a container on kind is 2 below the first */

/*
 * By inode number, which the kernel gives to another namespace when this one is
 * gone: its address and cookie, which together do not come back, above two bits
 * for its owner.
 */
BPF_TABLE("lru_hash", u32, u64, network_namespaces, 16384);
/* Inode numbers: of the collector's own, and of the node's once it is known. */
#define OWN 0
#define OF_NODE 1
BPF_ARRAY(process_namespaces, u32, 2);

static __always_inline u32 inode_of(void *process_namespace)
{
	u32 inode = 0;

	READ(inode, process_namespace, PID_NAMESPACE_INUM);
	return inode;
}

static __always_inline int runs_on_this_node(void *task, u32 own, u32 *node)
{
	void *pid = 0, *process_namespace = 0;
	u32 level = 0;
	int depth;

	READ(pid, task, TASK_STRUCT_THREAD_PID);
	if (!pid)
		return 0;
	READ(level, pid, PID_LEVEL);
	if (level > 32)
		return 0;
	READ(process_namespace, pid, PID_NUMBERS + level * UPID_BYTES + UPID_NS);
#pragma unroll
	for (depth = 0; depth < MAX_DEPTH; depth++) {
		u32 inode;

		if (!process_namespace)
			return 0;
		inode = inode_of(process_namespace);
		if (*node && inode == *node)
			return 1;
		READ(process_namespace, process_namespace, PID_NAMESPACE_PARENT);
		if (inode == own && process_namespace)
			*node = inode_of(process_namespace);
	}
	return 0;
}

/* sched_switch(preempt, prev, next): `next` is about to run. */
int on_switch(struct bpf_raw_tracepoint_args *ctx)
{
	void *task = (void *)ctx->args[2], *namespaces = 0, *net = 0;
	u32 slot = OWN, inode = 0;
	u32 *own = process_namespaces.lookup(&slot), *node;
	u64 cookie = 0, identity, found, *known;

	slot = OF_NODE;
	node = process_namespaces.lookup(&slot);
	READ(namespaces, task, TASK_STRUCT_NSPROXY);
	if (!namespaces || !own || !node)
		return 0; /* it is exiting */
	READ(net, namespaces, NSPROXY_NET_NS);
	if (!net)
		return 0;
	READ(inode, net, NET_INUM);
	READ(cookie, net, NET_COOKIE);
	identity = ((u64)net + cookie) << 2;
	known = network_namespaces.lookup(&inode);
	/* While the node is not known, the collector's own tasks must get past this. */
	if (*node && known && *known == (identity | OF_THIS_NODE))
		return 0;
	found = identity | (runs_on_this_node(task, *own, node) ? OF_THIS_NODE : OF_ANOTHER);
	/* A process from outside may enter a namespace of this node, so only "this node" is final. */
	if (*node && (!known || *known != found))
		network_namespaces.update(&inode, &found);
	return 0;
}

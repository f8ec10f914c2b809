// SPDX-License-Identifier: GPL-2.0
/*
 * Whose sockets are on the node's own network. All of them have the node's address, so what tells
 * the pods there apart is the control group (cgroup v2) of the process that made the socket; a
 * connection that was accepted has its listener's. Compiled after flows.bpf.c.
 */

/* A container's group, the pod's above it, and those that a container may have made in its own. */
#define LEVELS 4
#define LEVEL_BYTES 96 /* "cri-containerd-", 64 digits, ".scope" */
#define MAX_ANCESTORS 32

/* The names of a group and of those above it. */
struct control_group {
	char names[LEVELS][LEVEL_BYTES];
};

BPF_TABLE("lru_hash", u32, struct control_group, control_groups, 1024);
BPF_ARRAY(no_control_group, struct control_group, 1);

static __always_inline u32 network_of(void *task)
{
	void *namespaces = 0, *net = 0;
	u32 inode = 0;

	READ(namespaces, task, TASK_STRUCT_NSPROXY);
	if (namespaces)
		READ(net, namespaces, NSPROXY_NET_NS);
	if (net)
		READ(inode, net, NET_INUM);
	return inode;
}

/*
 * A container is started by a process on the node's own network, so that is where the first one
 * among the ancestors is that does not share the network of this one. Without any, this one is
 * there itself.
 */
static __always_inline u32 find_node_network(void)
{
	void *task = (void *)bpf_get_current_task(), *parent = 0;
	u32 own = network_of(task), network;

	for (int i = 0; i < MAX_ANCESTORS; i++) {
		READ(parent, task, TASK_STRUCT_REAL_PARENT);
		if (!parent || parent == task)
			break;
		task = parent;
		network = network_of(task);
		if (network && network != own)
			return network;
	}
	return own;
}

/* The number of a socket's control group, 0 if it is not known. */
static __always_inline u32 owner_of(void *sk)
{
	void *group = 0, *node = 0, *name = 0;
	u64 id = 0;
	u32 owner;
	int slot = 0;
	struct control_group *found, *empty = no_control_group.lookup(&slot);

	READ(group, sk, SOCK_CGROUP);
	/* Until Linux 5.14 it may be something else: struct sock_cgroup_data. */
	if (!group || ((u64)group & 1) || !empty)
		return 0;
	READ(node, group, CGROUP_KN);
	READ(id, node, KERNFS_NODE_ID);
	owner = id; /* the other half counts how often the numbers began anew */
	if (!owner || control_groups.lookup(&owner))
		return owner;

	control_groups.update(&owner, empty);
	found = control_groups.lookup(&owner);
	if (!found)
		return owner;
#pragma unroll
	for (int level = 0; level < LEVELS; level++) {
		if (!node)
			break;
		READ(name, node, KERNFS_NODE_NAME);
		if (name)
			bpf_probe_read_kernel_str(found->names[level], LEVEL_BYTES, name);
		READ(node, node, KERNFS_NODE_PARENT);
	}
	return owner;
}

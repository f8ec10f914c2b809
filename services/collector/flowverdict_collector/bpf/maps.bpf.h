// SPDX-License-Identifier: GPL-2.0
/*
 * The maps and what is in them, compiled in front of flows.bpf.c. They may outlive
 * the programs: with the same maps, another version of the programs goes on where
 * the one before ended.
 */

struct flow_key {
	FLOW_KEY_MEMBERS
};

struct flow_record {
	struct flow_key key;
	FLOW_COUNT_MEMBERS
};

struct totals {
	u64 bytes_sent;
	u64 bytes_acked;
	u64 bytes_received;
	u32 segs_out;
	u32 segs_in;
	u32 data_segs_out;
	u32 total_retrans;
	u32 spurious;
	u32 out_of_order;
	u32 path_mtu;
	u8 role;
	u8 opened;
	u8 zero_window;
	u8 unused;
};

/*
 * Who adds a socket's counts: hooks, which hold its lock and so run one after the other,
 * and count_rest, which does not.
 */
#define BY_HOOK 0
#define BY_DRAIN 1

/*
 * What was counted last is in `seen`, at the slot that the lowest two bits of `latest`
 * name. Each of the two writes only slots of its own, never the one named, and then
 * changes `latest` in one step if nobody has meanwhile. The other bits never repeat:
 * the memory of an entry is used for others. 0 is an entry that is not filled in yet.
 */
#ifdef SAMPLE_ONCE_A_TICK
#define SLOT_BITS 2
#else
#define SLOT_BITS 1
#endif
#define SLOT_MASK ((1 << SLOT_BITS) - 1)

struct tracked_socket {
	struct flow_key key;
	u64 latest;
	u64 sampled_at; /* by on_segment, in jiffies; 0 unless it is in `changed` */
	u64 owner;      /* the number of its control group; 0 off the node's own network */
	u32 answered;    /* how much data it had sent when it last received some */
	u32 answered_at; /* and when that was, in jiffies */
	struct totals seen[1 << SLOT_BITS];
};

struct control {
	u64 active_program; /* the id of the version that counts; others do nothing */
	u64 started;        /* jiffies when counting began */
	u64 node_network;   /* the namespace that the node's own processes use */
	u64 started_ns;     /* of the monotonic clock, when counting began */
};

struct progress {
	u64 words[PROGRESS_WORDS];
};

_Static_assert(sizeof(struct flow_key) == FLOW_KEY_BYTES, "key");
_Static_assert(sizeof(struct flow_record) == FLOW_RECORD_BYTES, "record");

BPF_TABLE("hash", struct flow_key, struct flow_record, flows_even, MAX_FLOWS);
BPF_TABLE("hash", struct flow_key, struct flow_record, flows_odd, MAX_FLOWS);
BPF_ARRAY_OF_MAPS(active_flows, "flows_even", 1);
BPF_F_TABLE("hash", u64, struct tracked_socket, sockets, MAX_SOCKETS, SOCKETS_FLAGS);
/* The `sockets` of the programs that counted before, with other maps, if there were any. */
BPF_TABLE("hash", u64, struct tracked_socket, sockets_before, 1);
/* All zero: entries are too large for a program's stack, so they are filled in where they are. */
BPF_ARRAY(no_flow, struct flow_record, 1);
BPF_ARRAY(no_socket, struct tracked_socket, 1);
#ifdef SAMPLE_ONCE_A_TICK
/* A socket that may have counted something since it was sampled. */
struct changed_socket {
	u64 id;
	u64 put_back_in; /* the interval in which count_rest did, or 0 */
};

BPF_QUEUE(changed, struct changed_socket, MAX_FLOWS);
#endif
/* Sockets that did not fit into `sockets`, so that each is counted as lost once. */
BPF_TABLE("lru_hash", u64, u64, untracked, 8192);
/* When each socket that is connecting began to, in nanoseconds of the monotonic clock. */
BPF_TABLE("lru_hash", u64, u64, connecting, 8192);
BPF_ARRAY(lost, u64, 2);
BPF_ARRAY(control, struct control, 1);
/* What the service has published. The programs do not read it. */
BPF_ARRAY(progress, struct progress, 1);
/* Byte offsets of two counters in a record. */
struct drop_counters {
	u16 of_kind; /* 0 if the reason is not counted */
	u16 of_reason;
};

/* By the slot of a drop reason. */
BPF_ARRAY(drop_offsets, struct drop_counters, 512);

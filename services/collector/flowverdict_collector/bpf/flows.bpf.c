// SPDX-License-Identifier: GPL-2.0
/*
 * Counts TCP per flow, in the kernel, from the sockets' own counters.
 *
 * Every hook reads the totals that the kernel already keeps in struct tcp_sock
 * (include/linux/tcp.h) and adds what changed since the hook before to the
 * flow's record. So a record holds what the kernel itself counted; an event
 * that no hook sees is picked up by the next one, at the latest when the socket
 * is destroyed.
 *
 * No kernel struct is declared here. Offsets come from the running kernel's BTF
 * as -D definitions (offsets.py), record offsets from the wire contract, so
 * neither can drift without the compiler or the verifier saying so.
 */

#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_SYN_RECV 3
#define TCP_CLOSE 7
#define TCP_LISTEN 10
#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6

#define ROLE_UNKNOWN 0
#define ROLE_CLIENT 1
#define ROLE_SERVER 2

/* Where the counts of a socket begin. */
#define FROM_ZERO 0   /* seen from its first segment */
#define FROM_ACCEPT 1 /* SYN-ACK retransmissions were counted on the request */
#define FROM_NOW 2    /* older than the collector */

#define LOST_FLOW_UPDATES 0
#define LOST_SOCKETS 1

struct flow_key {
	u8 src[16];
	u8 dst[16];
	u16 src_port;
	u16 dst_port;
	u32 netns;
};

struct flow_record {
	struct flow_key key;
	u64 bytes_sent;
	u64 bytes_acked;
	u64 bytes_received;
	u32 segments_sent;
	u32 segments_received;
	u32 retransmitted_segments;
	u32 syn_retransmits;
	u32 opens;
	u32 failed_opens;
	u32 resets_sent;
	u32 resets_received;
	u32 drops_netfilter;
	u32 drops_queue;
	u32 drops_socket;
	u32 drops_other;
	u32 rtt_us;
	u32 rtt_variation_us;
	u16 mss;
	u8 role;
	u8 reserved;
	u32 data_segments_sent;
};

struct totals {
	u64 bytes_sent;
	u64 bytes_acked;
	u64 bytes_received;
	u32 segs_out;
	u32 segs_in;
	u32 data_segs_out;
	u32 total_retrans;
	u32 role;
	u32 reserved;
};

struct tracked_socket {
	struct flow_key key;
	struct totals seen;
};

RECORD_LAYOUT_ASSERTS

BPF_TABLE("hash", struct flow_key, struct flow_record, flows_even, MAX_FLOWS);
BPF_TABLE("hash", struct flow_key, struct flow_record, flows_odd, MAX_FLOWS);
BPF_ARRAY_OF_MAPS(active_flows, "flows_even", 1);
BPF_TABLE("hash", u64, struct tracked_socket, sockets, MAX_SOCKETS);
BPF_ARRAY(lost, u64, 2);
BPF_ARRAY(drop_field, u32, 512);

#define READ(into, base, offset) \
	bpf_probe_read_kernel(&(into), sizeof(into), (void *)(base) + (offset))

static __always_inline u16 swap16(u16 value)
{
	return (value >> 8) | (value << 8);
}

static __always_inline void count_lost(u32 which)
{
	u64 *count = lost.lookup(&which);
	if (count)
		__sync_fetch_and_add(count, 1);
}

/* IPv4 as ::ffff:a.b.c.d, RFC 4291 section 2.5.5.2. */
static __always_inline void map_ipv4(u8 *address)
{
	address[10] = 0xff;
	address[11] = 0xff;
}

/* struct sock, request_sock and inet_timewait_sock all begin with sock_common. */
static __always_inline int read_key(void *common, struct flow_key *key)
{
	u16 family = 0, dst_port = 0;
	void *net = 0;

	READ(family, common, SOCK_COMMON_FAMILY);
	if (family == AF_INET) {
		map_ipv4(key->src);
		map_ipv4(key->dst);
		bpf_probe_read_kernel(&key->src[12], 4, common + SOCK_COMMON_RCV_SADDR);
		bpf_probe_read_kernel(&key->dst[12], 4, common + SOCK_COMMON_DADDR);
	} else if (family == AF_INET6) {
		bpf_probe_read_kernel(key->src, 16, common + SOCK_COMMON_V6_RCV_SADDR);
		bpf_probe_read_kernel(key->dst, 16, common + SOCK_COMMON_V6_DADDR);
	} else {
		return 0;
	}
	READ(key->src_port, common, SOCK_COMMON_NUM);
	READ(dst_port, common, SOCK_COMMON_DPORT);
	key->dst_port = swap16(dst_port);
	READ(net, common, SOCK_COMMON_NET);
	if (net)
		READ(key->netns, net, NET_INUM);
	return 1;
}

/* A closed socket has given its number back; inet_sport still holds it. */
static __always_inline int read_socket_key(void *sk, struct flow_key *key)
{
	u16 src_port = 0;

	if (!read_key(sk, key))
		return 0;
	READ(src_port, sk, INET_SOCK_SPORT);
	key->src_port = swap16(src_port);
	return 1;
}

/* The flow of a packet, as its sender names it. */
static __always_inline int read_packet_key(void *skb, struct flow_key *key)
{
	void *head = 0, *ip;
	u16 network_header = 0, protocol = 0, ports[2] = {};
	u8 version = 0, next = 0;
	u32 length;

	READ(head, skb, SK_BUFF_HEAD);
	READ(network_header, skb, SK_BUFF_NETWORK_HEADER);
	if (!head || network_header == 0 || network_header == 0xffff)
		return 0;
	READ(protocol, skb, SK_BUFF_PROTOCOL);
	ip = head + network_header;
	READ(version, ip, 0);
	if (protocol == swap16(0x0800) && (version >> 4) == 4) {
		length = (version & 0xf) * 4;
		READ(next, ip, 9);
		map_ipv4(key->src);
		map_ipv4(key->dst);
		bpf_probe_read_kernel(&key->src[12], 4, ip + 12);
		bpf_probe_read_kernel(&key->dst[12], 4, ip + 16);
	} else if (protocol == swap16(0x86dd) && (version >> 4) == 6) {
		length = 40;
		READ(next, ip, 6);
		bpf_probe_read_kernel(key->src, 16, ip + 8);
		bpf_probe_read_kernel(key->dst, 16, ip + 24);
	} else {
		return 0;
	}
	if (next != IPPROTO_TCP)
		return 0;
	READ(ports, ip, length);
	key->src_port = swap16(ports[0]);
	key->dst_port = swap16(ports[1]);
	return 1;
}

/* The flow's record of this interval, made where there is none. */
static __always_inline struct flow_record *record_of(struct flow_key *key)
{
	int slot = 0;
	void *flows = active_flows.lookup(&slot);
	struct flow_record *record;

	if (!flows)
		return 0;
	record = bpf_map_lookup_elem(flows, key);
	if (record)
		return record;

	struct flow_record fresh = {};
	__builtin_memcpy(&fresh.key, key, sizeof(fresh.key));
	bpf_map_update_elem(flows, key, &fresh, BPF_NOEXIST);
	return bpf_map_lookup_elem(flows, key);
}

static __always_inline void read_totals(void *sk, struct totals *now)
{
	READ(now->bytes_sent, sk, TCP_SOCK_BYTES_SENT);
	READ(now->bytes_acked, sk, TCP_SOCK_BYTES_ACKED);
	READ(now->bytes_received, sk, TCP_SOCK_BYTES_RECEIVED);
	READ(now->segs_out, sk, TCP_SOCK_SEGS_OUT);
	READ(now->segs_in, sk, TCP_SOCK_SEGS_IN);
	READ(now->data_segs_out, sk, TCP_SOCK_DATA_SEGS_OUT);
	READ(now->total_retrans, sk, TCP_SOCK_TOTAL_RETRANS);
}

/* tcp_disconnect() sets the totals back to zero on a socket that is used again. */
#define GREW(field) (now.field >= tracked->seen.field ? now.field - tracked->seen.field : now.field)

/*
 * Adds what the socket counted since the hook before. Where the map is full the
 * socket's own totals keep the difference for the next hook.
 */
static __always_inline struct flow_record *sample(void *sk, struct tracked_socket *tracked)
{
	struct totals now = {};
	struct flow_key key;
	struct flow_record *record;
	u32 srtt = 0, mdev = 0, mss = 0;

	__builtin_memcpy(&key, &tracked->key, sizeof(key));
	record = record_of(&key);
	if (!record)
		return 0;
	read_totals(sk, &now);
	__sync_fetch_and_add(&record->bytes_sent, GREW(bytes_sent));
	__sync_fetch_and_add(&record->bytes_acked, GREW(bytes_acked));
	__sync_fetch_and_add(&record->bytes_received, GREW(bytes_received));
	__sync_fetch_and_add(&record->segments_sent, GREW(segs_out));
	__sync_fetch_and_add(&record->segments_received, GREW(segs_in));
	__sync_fetch_and_add(&record->data_segments_sent, GREW(data_segs_out));
	if (now.total_retrans != tracked->seen.total_retrans)
		__sync_fetch_and_add(&record->retransmitted_segments, GREW(total_retrans));
	READ(srtt, sk, TCP_SOCK_SRTT_US);
	if (srtt) {
		READ(mdev, sk, TCP_SOCK_MDEV_US);
		record->rtt_us = srtt >> 3;
		record->rtt_variation_us = mdev >> 2;
	}
	READ(mss, sk, TCP_SOCK_MSS_CACHE);
	record->mss = mss;
	record->role = tracked->seen.role;
	now.role = tracked->seen.role;
	__builtin_memcpy(&tracked->seen, &now, sizeof(now));
	return record;
}

static __always_inline struct tracked_socket *track(void *sk, u32 role, int from)
{
	u64 id = (u64)sk;
	struct tracked_socket fresh = {};

	if (!read_socket_key(sk, &fresh.key))
		return 0;
	if (from == FROM_NOW)
		read_totals(sk, &fresh.seen);
	if (from == FROM_ACCEPT)
		READ(fresh.seen.total_retrans, sk, TCP_SOCK_TOTAL_RETRANS);
	fresh.seen.role = role;
	sockets.update(&id, &fresh);

	struct tracked_socket *tracked = sockets.lookup(&id);
	if (!tracked)
		count_lost(LOST_SOCKETS);
	return tracked;
}

/* connect() after disconnect() gives a socket another port, and its totals begin anew. */
static __always_inline int is_reused(void *sk, struct tracked_socket *tracked)
{
	u16 src_port = 0;

	if (!tracked)
		return 1;
	READ(src_port, sk, INET_SOCK_SPORT);
	return tracked->key.src_port != swap16(src_port);
}

int on_set_state(struct bpf_raw_tracepoint_args *ctx)
{
	void *sk = (void *)ctx->args[0];
	int before = ctx->args[1], after = ctx->args[2];
	u16 protocol = 0;
	u64 id = (u64)sk;
	int opened = after == TCP_ESTABLISHED;
	struct tracked_socket *tracked;
	struct flow_record *record;

	if (before != TCP_SYN_SENT && before != TCP_SYN_RECV)
		return 0;
	if (!opened && after != TCP_CLOSE)
		return 0;
	READ(protocol, sk, SOCK_PROTOCOL);
	if ((protocol & 0xff) != IPPROTO_TCP)
		return 0;

	tracked = sockets.lookup(&id);
	if (before == TCP_SYN_SENT && is_reused(sk, tracked))
		tracked = track(sk, ROLE_CLIENT, FROM_ZERO);
	else if (!tracked)
		tracked = track(sk, ROLE_SERVER, FROM_ACCEPT);
	if (!tracked)
		return 0;
	record = sample(sk, tracked);
	if (!opened)
		sockets.delete(&id);
	if (!record) {
		count_lost(LOST_FLOW_UPDATES);
		return 0;
	}
	if (!opened) {
		__sync_fetch_and_add(&record->failed_opens, 1);
		return 0;
	}
	__sync_fetch_and_add(&record->opens, 1);
	/* The SYN-ACK went out before there was a socket to count it. */
	if (before == TCP_SYN_RECV)
		__sync_fetch_and_add(&record->segments_sent, 1);
	return 0;
}

int on_segment(struct bpf_raw_tracepoint_args *ctx)
{
	void *sk = (void *)ctx->args[0];
	u64 id = (u64)sk;
	struct tracked_socket *tracked = sockets.lookup(&id);

	if (tracked)
		sample(sk, tracked);
	else
		track(sk, ROLE_UNKNOWN, FROM_NOW);
	return 0;
}

int on_retransmit(struct bpf_raw_tracepoint_args *ctx)
{
	void *sk = (void *)ctx->args[0], *skb = (void *)ctx->args[1];
	u64 id = (u64)sk;
	u8 state = 0;
	u16 segments = 0;
	struct tracked_socket *tracked = sockets.lookup(&id);
	struct flow_record *record;

	READ(state, sk, SOCK_COMMON_STATE);
	if (!tracked && state == TCP_SYN_SENT) {
		tracked = track(sk, ROLE_CLIENT, FROM_ZERO);
	} else if (!tracked) {
		tracked = track(sk, ROLE_UNKNOWN, FROM_NOW);
		if (!tracked)
			return 0;
		READ(segments, skb, SK_BUFF_CB + TCP_SKB_CB_GSO_SEGS);
		if (segments == 0)
			segments = 1;
		tracked->seen.total_retrans -= segments;
		tracked->seen.segs_out -= segments;
		tracked->seen.data_segs_out -= segments;
	}
	if (!tracked)
		return 0;
	record = sample(sk, tracked);
	if (record && state == TCP_SYN_SENT)
		__sync_fetch_and_add(&record->syn_retransmits, 1);
	return 0;
}

int on_retransmit_synack(struct bpf_raw_tracepoint_args *ctx)
{
	void *sk = (void *)ctx->args[0], *request = (void *)ctx->args[1];
	u8 state = 0;
	struct flow_key key = {};
	struct flow_record *record;

	READ(state, sk, SOCK_COMMON_STATE);
	/* With TCP Fast Open the child counts it and the next sample takes it. */
	if (state != TCP_LISTEN || !read_key(request, &key))
		return 0;
	record = record_of(&key);
	if (!record) {
		count_lost(LOST_FLOW_UPDATES);
		return 0;
	}
	record->role = ROLE_SERVER;
	__sync_fetch_and_add(&record->segments_sent, 1);
	__sync_fetch_and_add(&record->retransmitted_segments, 1);
	__sync_fetch_and_add(&record->syn_retransmits, 1);
	return 0;
}

int on_destroy(struct bpf_raw_tracepoint_args *ctx)
{
	void *sk = (void *)ctx->args[0];
	u64 id = (u64)sk;
	struct tracked_socket *tracked = sockets.lookup(&id);

	if (!tracked)
		return 0;
	if (!sample(sk, tracked))
		count_lost(LOST_FLOW_UPDATES);
	sockets.delete(&id);
	return 0;
}

/* The flow of a socket that sent or received a reset. */
static __always_inline int read_reset_key(void *sk, struct flow_key *key)
{
	u64 id = (u64)sk;
	struct tracked_socket *tracked = sockets.lookup(&id);

	if (tracked) {
		__builtin_memcpy(key, &tracked->key, sizeof(*key));
		return 1;
	}
	return read_key(sk, key);
}

int on_send_reset(struct bpf_raw_tracepoint_args *ctx)
{
	void *sk = (void *)ctx->args[0], *skb = (void *)ctx->args[1];
	struct flow_key key = {}, answered = {};
	struct flow_record *record;
	u8 state = TCP_LISTEN;

	if (sk)
		READ(state, sk, SOCK_COMMON_STATE);
	if (state != TCP_LISTEN) {
		if (!read_reset_key(sk, &key))
			return 0;
	} else {
		if (!skb || !read_packet_key(skb, &answered))
			return 0;
		__builtin_memcpy(key.src, answered.dst, 16);
		__builtin_memcpy(key.dst, answered.src, 16);
		key.src_port = answered.dst_port;
		key.dst_port = answered.src_port;
	}
	record = record_of(&key);
	if (record)
		__sync_fetch_and_add(&record->resets_sent, 1);
	else
		count_lost(LOST_FLOW_UPDATES);
	return 0;
}

int on_receive_reset(struct bpf_raw_tracepoint_args *ctx)
{
	void *sk = (void *)ctx->args[0];
	struct flow_key key = {};
	struct flow_record *record;

	if (!read_reset_key(sk, &key))
		return 0;
	record = record_of(&key);
	if (record)
		__sync_fetch_and_add(&record->resets_received, 1);
	else
		count_lost(LOST_FLOW_UPDATES);
	return 0;
}

int on_drop(struct bpf_raw_tracepoint_args *ctx)
{
	void *skb = (void *)ctx->args[0];
	u32 reason = ctx->args[2];
	u32 *field = drop_field.lookup(&reason);
	struct flow_key key = {};
	struct flow_record *record;

	if (!field || *field == 0 || !read_packet_key(skb, &key))
		return 0;
	record = record_of(&key);
	if (!record)
		count_lost(LOST_FLOW_UPDATES);
	else if (*field == 1)
		__sync_fetch_and_add(&record->drops_netfilter, 1);
	else if (*field == 2)
		__sync_fetch_and_add(&record->drops_queue, 1);
	else if (*field == 3)
		__sync_fetch_and_add(&record->drops_socket, 1);
	else
		__sync_fetch_and_add(&record->drops_other, 1);
	return 0;
}

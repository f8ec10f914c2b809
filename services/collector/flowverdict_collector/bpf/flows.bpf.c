// SPDX-License-Identifier: GPL-2.0
/*
 * Counts TCP traffic per flow, in the kernel, from the sockets' own counters.
 *
 * Every hook reads the totals that the kernel already keeps in struct tcp_sock
 * (include/linux/tcp.h) and adds what changed since the previous hook to the
 * flow's record. A record thus contains what the kernel itself counted; an
 * event that no hook sees is picked up by the next one, at the latest when the
 * socket is destroyed.
 *
 * No layout is declared here. Offsets in kernel structs come from the running
 * kernel's BTF, the members of a record from the wire contract, both as -D
 * definitions (definitions.py), so neither can drift.
 */

#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_SYN_RECV 3
#define TCP_FIN_WAIT1 4
#define TCP_FIN_WAIT2 5
#define TCP_CLOSE 7
#define TCP_CLOSE_WAIT 8
#define TCP_LAST_ACK 9
#define TCP_LISTEN 10
#define TCP_CLOSING 11
#define AF_INET 2
#define AF_INET6 10
#define ENETUNREACH 101
#define ETIMEDOUT 110
#define ECONNREFUSED 111
#define EHOSTUNREACH 113
#define IPPROTO_TCP 6
#define FIRST_CLIENT_PORT 32768
#define DNS_PORT 53
#define DNS_HEADER_BYTES 12
#define LONGEST_ANSWER_US 3600000000U
#define TCP_FIN 1

/* Where the counts of a socket begin. */
#define FROM_ZERO 0   /* its first segment */
#define FROM_ACCEPT 1 /* SYN-ACK retransmissions were counted on the request */
#define FROM_NOW 2    /* older than the collector */

/* Nobody who is near takes as long to answer: it is the shortest retransmission timeout. */
#define LONG_WAIT_US 200000

/* More segments than a new connection exchanges before any hook sees it. */
#define FEW_SEGMENTS 4096

/* include/net/inet_connection_sock.h, include/uapi/linux/tcp.h */
#define ICSK_TIME_LOSS_PROBE 5
#define TCP_CA_RECOVERY 3
#define TCP_CA_LOSS 4

/* Nobody else samples a socket more than once while it is sampled. */
#ifdef SAMPLE_ONCE_A_TICK
#define ATTEMPTS 2
#else
#define ATTEMPTS 1
#endif
#define DRAINED_AT_ONCE 64

#define LOST_FLOW_UPDATES 0
#define LOST_SOCKETS 1

#define READ(into, base, offset) \
	bpf_probe_read_kernel(&(into), sizeof(into), (void *)(base) + (offset))

/*
 * While one version of the programs takes over from another, both are attached. The
 * service switches from one to the other in one step, so no event falls between them.
 */
static __always_inline int is_active(void)
{
	int slot = 0;
	struct control *here = control.lookup(&slot);

	return here && here->active_program == PROGRAM_ID;
}

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

/* A closed socket has released its port number, but inet_sport still has it. */
static __always_inline int read_socket_key(void *sk, struct flow_key *key)
{
	u16 src_port = 0;

	if (!read_key(sk, key))
		return 0;
	READ(src_port, sk, INET_SOCK_SPORT);
	key->src_port = swap16(src_port);
	return 1;
}

/*
 * The network namespace of a packet: its socket's, if it has one, else its device's. The kernel
 * keeps other things in place of the device while a packet is queued at a socket.
 */
static __always_inline u32 namespace_of(void *skb)
{
	void *sk = 0, *dev = 0, *net = 0;
	u32 inode = 0;

	READ(sk, skb, SK_BUFF_SK);
	if (sk)
		READ(net, sk, SOCK_COMMON_NET);
	else
		READ(dev, skb, SK_BUFF_DEV);
	if (dev)
		READ(net, dev, NET_DEVICE_NET);
	if (net)
		READ(inode, net, NET_INUM);
	return inode;
}

/*
 * The flow of a packet with that protocol, from its sender's point of view, but for the
 * network namespace; where its transport header begins, or 0 if it is no such packet.
 */
static __always_inline void *read_headers(void *ip, u8 protocol, struct flow_key *key)
{
	u16 ports[2] = {};
	u8 version = 0, next = 0;
	u32 length;

	READ(version, ip, 0);
	if ((version >> 4) == 4) {
		length = (version & 0xf) * 4;
		READ(next, ip, 9);
		if (next != protocol)
			return 0;
		map_ipv4(key->src);
		map_ipv4(key->dst);
		bpf_probe_read_kernel(&key->src[12], 4, ip + 12);
		bpf_probe_read_kernel(&key->dst[12], 4, ip + 16);
	} else if ((version >> 4) == 6) {
		length = 40;
		READ(next, ip, 6);
		if (next != protocol)
			return 0;
		bpf_probe_read_kernel(key->src, 16, ip + 8);
		bpf_probe_read_kernel(key->dst, 16, ip + 24);
	} else {
		return 0;
	}
	READ(ports, ip, length);
	key->src_port = swap16(ports[0]);
	key->dst_port = swap16(ports[1]);
	return ip + length;
}

/* The same of a packet whose network header is known. */
static __always_inline void *read_packet(void *skb, u8 protocol, struct flow_key *key)
{
	void *head = 0;
	u16 network_header = 0, ethertype = 0;

	READ(head, skb, SK_BUFF_HEAD);
	READ(network_header, skb, SK_BUFF_NETWORK_HEADER);
	if (!head || network_header == 0 || network_header == 0xffff)
		return 0;
	READ(ethertype, skb, SK_BUFF_PROTOCOL);
	if (ethertype != swap16(0x0800) && ethertype != swap16(0x86dd))
		return 0;
	return read_headers(head + network_header, protocol, key);
}

static __always_inline int read_packet_key(void *skb, struct flow_key *key)
{
	if (!read_packet(skb, IPPROTO_TCP, key))
		return 0;
	key->netns = namespace_of(skb);
	return 1;
}

/* How many a packet becomes on the wire: until then, large ones are kept whole (GSO). */
static __always_inline u32 segments_of(void *skb)
{
	void *head = 0;
	u32 end = 0;
	u16 segments = 0;

	READ(head, skb, SK_BUFF_HEAD);
	READ(end, skb, SK_BUFF_END);
	READ(segments, head + end, SKB_SHARED_INFO_GSO_SEGS);
	return segments ? segments : 1;
}

/*
 * With FOLD_CLIENT_PORTS, all connections of a client to one port of a server are one flow, without
 * the client's port. Where it is unknown which end is the client, as for a packet without a socket,
 * a port from the kernel's default range for clients tells (net.ipv4.ip_local_port_range).
 */
static __always_inline void fold_client_port(struct flow_key *key, u8 role)
{
#ifdef FOLD_CLIENT_PORTS
	int src_may_be_client = key->src_port >= FIRST_CLIENT_PORT;
	int dst_may_be_client = key->dst_port >= FIRST_CLIENT_PORT;

	if (role == ROLE_CLIENT || (role == ROLE_UNKNOWN && src_may_be_client && !dst_may_be_client))
		key->src_port = 0;
	else if (role == ROLE_SERVER || (!src_may_be_client && dst_may_be_client))
		key->dst_port = 0;
#endif
}

/* The record with this key for this interval, created if there is none. */
static __always_inline struct flow_record *record_with(struct flow_key *key)
{
	int slot = 0;
	void *flows = active_flows.lookup(&slot);
	struct flow_record *record, *empty;

	if (!flows)
		return 0;
	record = bpf_map_lookup_elem(flows, key);
	if (record)
		return record;

	empty = no_flow.lookup(&slot);
	if (!empty)
		return 0;
	bpf_map_update_elem(flows, key, empty, BPF_NOEXIST);
	record = bpf_map_lookup_elem(flows, key);
	if (record)
		__builtin_memcpy(&record->key, key, sizeof(*key));
	return record;
}

/* The flow's record; the role is that of `src`. */
static __always_inline struct flow_record *record_of(struct flow_key *key, u8 role)
{
	fold_client_port(key, role);
	return record_with(key);
}

/* READ_TOTALS reads those that are near each other in one go: definitions.py. */
static __always_inline void read_totals(void *sk, struct totals *now)
{
	READ_TOTALS
	now->spurious = 0;
	/* Only what was retransmitted can have been unnecessary: see tcp_dsack_seen(). */
	if (now->total_retrans)
		READ(now->spurious, sk, TCP_SOCK_DSACK_DUPS);
}

/* tcp_disconnect() resets the totals of a socket that is reused. */
#define GREW(field) (now->field >= before.field ? now->field - before.field : now->field)

/* What was counted of a socket last. */
static __always_inline struct totals *seen_of(struct tracked_socket *tracked)
{
	return &tracked->seen[*(volatile u64 *)&tracked->latest & SLOT_MASK];
}

/* Where, and as what, `who` may leave what it counts after `latest`. */
static __always_inline u64 next_of(u64 latest, int who)
{
	u64 slot = 2 * who + ((latest & SLOT_MASK) == 2 * who);

	return (((latest >> SLOT_BITS) + 1) << SLOT_BITS) + slot;
}

/*
 * Let what was counted last be what `next` names, unless somebody has counted since
 * `latest`. Nobody but the hooks does where the kernel lacks the instruction.
 */
static __always_inline int commit(struct tracked_socket *tracked, u64 latest, u64 next)
{
#ifdef SAMPLE_ONCE_A_TICK
	return __sync_bool_compare_and_swap(&tracked->latest, latest, next);
#else
	tracked->latest = next;
	return 1;
#endif
}

static __always_inline int is_closing(u8 state)
{
	return state == TCP_FIN_WAIT1 || state == TCP_FIN_WAIT2 || state == TCP_LAST_ACK ||
	       state == TCP_CLOSING;
}

static __always_inline int is_connected(u8 state)
{
	return state == TCP_ESTABLISHED || state == TCP_CLOSE_WAIT || is_closing(state);
}

/* One end has sent its FIN, the other may go on for long. */
static __always_inline int is_half_closed(u8 state)
{
	return state == TCP_CLOSE_WAIT || state == TCP_FIN_WAIT1 || state == TCP_FIN_WAIT2;
}

/* What one look in each interval is enough for, and one when a segment is retransmitted. */
static __always_inline void read_rarely_changing(void *sk, u32 path_mtu, struct flow_record *record)
{
	u32 mss = 0, minimum = 0;

	READ(mss, sk, TCP_SOCK_MSS_CACHE);
	record->mss = mss;
	record->path_mtu_bytes = path_mtu < 0xffff ? path_mtu : 0xffff;
	/* The newest value of a struct minmax (include/linux/win_minmax.h). */
	if (record->rtt_us) {
		READ(minimum, sk, TCP_SOCK_RTT_MIN + sizeof(u32));
		record->minimum_rtt_us = minimum;
	}
}

#ifdef READ_OWNERS
static __always_inline u32 find_node_network(void);
static __always_inline u32 owner_of(void *sk);

#define SEVERAL_OWNERS 0xffffffff

/* Connections of several owners may be one flow, if the ports of clients are folded. */
static __always_inline void name_owner(struct flow_record *record, u32 owner)
{
	if (!owner || record->owner == owner)
		return;
	record->owner = record->owner ? SEVERAL_OWNERS : owner;
}
#endif

#ifdef COUNT_LOOKUPS
static __always_inline int give_up_lookups(void);

static __always_inline int asks_dns(struct tracked_socket *tracked)
{
	return tracked->key.dst_port == DNS_PORT && seen_of(tracked)->role == ROLE_CLIENT;
}

/*
 * Over TCP, a connection counts as one lookup, and what its socket counts tells whether there was
 * an answer: the payload of a segment is nowhere that a program can read it. The time is from the
 * connection's opening, which `latest` began with.
 */
static __always_inline void count_tcp_lookup(struct flow_record *record, u64 latest,
					     struct totals *before, struct totals *now)
{
	u64 took;

	if (now->data_segs_out && !before->data_segs_out)
		__sync_fetch_and_add(&record->dns_lookups, 1);
	if (before->bytes_received >= DNS_HEADER_BYTES || now->bytes_received < DNS_HEADER_BYTES)
		return;
	__sync_fetch_and_add(&record->dns_answers, 1);
	took = (bpf_ktime_get_ns() - (latest >> SLOT_BITS)) / 1000;
	record->dns_answer_us = took > LONGEST_ANSWER_US ? LONGEST_ANSWER_US : took ? took : 1;
}
#endif

/*
 * Adds what the socket counted since it was sampled before. If the map is full, the
 * difference stays in the socket's own totals for the next time. The only thing a
 * socket retransmits in SYN_SENT is its SYN. A connection counts as opened once any
 * hook sees it connected: the hook for the transition may have been skipped.
 */
static __always_inline struct flow_record *sample(void *sk, struct tracked_socket *tracked, int who,
						  int in_syn_sent, int opens_now)
{
	struct totals *now = &tracked->seen[0], before;
	struct flow_key key;
	struct flow_record *record;
	u64 latest, next;
	u32 srtt = 0, mdev = 0, window = 0, retransmitted;
	u8 state = 0, looks_at_window;
	int is_new = 0;

	__builtin_memcpy(&key, &tracked->key, sizeof(key));
	record = record_of(&key, seen_of(tracked)->role);
	if (!record)
		return 0;
	READ(state, sk, SOCK_COMMON_STATE);
	/* Before the window that comes with the first segment is read, it is 0. */
	looks_at_window = !opens_now && (state == TCP_ESTABLISHED || state == TCP_CLOSE_WAIT);
	if (looks_at_window)
		READ(window, sk, TCP_SOCK_SND_WND);

	for (int attempt = 0; attempt < ATTEMPTS && !is_new; attempt++) {
		latest = *(volatile u64 *)&tracked->latest;
		__builtin_memcpy(&before, &tracked->seen[latest & SLOT_MASK], sizeof(before));
		next = next_of(latest, who);
		now = &tracked->seen[next & SLOT_MASK];
		read_totals(sk, now);
		now->path_mtu = before.path_mtu;
		retransmitted = GREW(total_retrans);
		/* Another connection may have been the first in a record that is folded. */
		if (record->mss == 0 || retransmitted || !before.path_mtu)
			READ(now->path_mtu, sk, ICSK_PMTU_COOKIE);
		now->role = before.role;
		now->opened = before.opened || opens_now || is_connected(state);
		now->zero_window = looks_at_window && window == 0;
		is_new = commit(tracked, latest, next);
	}
	if (!is_new)
		return 0;

	if (now->role != ROLE_UNKNOWN || !record->role)
		record->role = now->role;
#ifdef READ_OWNERS
	name_owner(record, tracked->owner);
#endif
	__sync_fetch_and_add(&record->bytes_sent, GREW(bytes_sent));
	__sync_fetch_and_add(&record->bytes_acked, GREW(bytes_acked));
	__sync_fetch_and_add(&record->bytes_received, GREW(bytes_received));
	__sync_fetch_and_add(&record->segments_sent, GREW(segs_out));
	__sync_fetch_and_add(&record->segments_received, GREW(segs_in));
	__sync_fetch_and_add(&record->data_segments_sent, GREW(data_segs_out));
	if (retransmitted) {
		__sync_fetch_and_add(&record->retransmitted_segments, retransmitted);
		if (in_syn_sent)
			__sync_fetch_and_add(&record->retransmitted_syns, retransmitted);
		else
			__sync_fetch_and_add(&record->retransmitted_data_segments, retransmitted);
	}
	if (now->spurious != before.spurious)
		__sync_fetch_and_add(&record->spurious_retransmissions, GREW(spurious));
	if (now->out_of_order != before.out_of_order)
		__sync_fetch_and_add(&record->out_of_order_segments, GREW(out_of_order));
	READ(srtt, sk, TCP_SOCK_SRTT_US);
	if (srtt) {
		READ(mdev, sk, TCP_SOCK_MDEV_US);
		record->rtt_us = srtt >> 3;
		record->rtt_variation_us = mdev >> 2;
	}
	if (record->mss == 0 || retransmitted)
		read_rarely_changing(sk, now->path_mtu, record);
	if (now->path_mtu < before.path_mtu)
		__sync_fetch_and_add(&record->path_mtu_reductions, 1);
	if (now->zero_window && !before.zero_window)
		__sync_fetch_and_add(&record->zero_windows_received, 1);
#ifdef COUNT_LOOKUPS
	if (asks_dns(tracked))
		count_tcp_lookup(record, latest, &before, now);
#endif
	if (now->opened && !before.opened) {
		__sync_fetch_and_add(&record->opens, 1);
		/* The SYN-ACK was sent before there was a socket to count it. */
		if (now->role == ROLE_SERVER)
			__sync_fetch_and_add(&record->segments_sent, 1);
	}
	return record;
}

/* A time in jiffies. Their difference has 32 bits, since the start may be 2^32 jiffies ago. */
static __always_inline int is_after_start(u32 jiffies)
{
	int slot = 0;
	struct control *here = control.lookup(&slot);
	u64 now = bpf_jiffies64();

	return here && here->started && (u32)((u32)now - jiffies) < now - here->started;
}

/*
 * Whether a socket that no hook has seen was opened after counting began, rather
 * than idle since before that. The kernel occasionally skips the programs for a whole
 * softirq, and with them every event of a new connection; such a socket is
 * told apart by having received something since the start. That says nothing in
 * other states, in which on_segment does not run.
 */
static __always_inline int was_skipped(void *sk)
{
	u8 state = 0;
	u32 received = 0, segs_in = 0, segs_out = 0;

	READ(state, sk, SOCK_COMMON_STATE);
	READ(received, sk, TCP_SOCK_RCV_TSTAMP);
	READ(segs_in, sk, TCP_SOCK_SEGS_IN);
	READ(segs_out, sk, TCP_SOCK_SEGS_OUT);
	return state == TCP_ESTABLISHED && is_after_start(received) &&
	       segs_in + segs_out < FEW_SEGMENTS;
}

/*
 * What an idle socket has sent after the start until something comes back is all in
 * flight, so it is not part of what was before.
 */
static __always_inline void leave_out_what_is_in_flight(void *sk, struct totals *seen)
{
	u32 last_sent = 0, next = 0, unacked = 0, segments = 0;

	READ(last_sent, sk, TCP_SOCK_LSNDTIME);
	if (!is_after_start(last_sent))
		return;
	READ(next, sk, TCP_SOCK_SND_NXT);
	READ(unacked, sk, TCP_SOCK_SND_UNA);
	READ(segments, sk, TCP_SOCK_PACKETS_OUT);
	seen->bytes_sent -= next - unacked;
	seen->segs_out -= segments;
	seen->data_segs_out -= segments;
}

/* Run once by each version, when it begins to count. */
int mark_start(struct bpf_raw_tracepoint_args *ctx)
{
	int slot = 0;
	struct control *here = control.lookup(&slot);

	if (!here)
		return 0;
#ifdef READ_OWNERS
	here->node_network = find_node_network();
#endif
	if (here->started)
		return 0; /* others counted before, without a break */
	here->started = bpf_jiffies64();
	here->started_ns = bpf_ktime_get_ns();
	return 0;
}

/*
 * Who opened a connection whose opening no hook saw. What was acknowledged and what
 * is in flight is what was sent once, plus one for the SYN, but only the client's
 * SYN: a server's socket begins after its SYN-ACK was acknowledged
 * (tcp_create_openreq_child, net/ipv4/tcp_minisocks.c). A FIN counts one, too. After
 * a segment that could not be handed to the device, the sum is off.
 */
static __always_inline u32 role_of(void *sk)
{
	u8 state = 0;
	u32 next = 0, unacked = 0, written = 0;
	u64 sent = 0, retransmitted = 0, acked = 0, extra;

	READ(state, sk, SOCK_COMMON_STATE);
	READ(next, sk, TCP_SOCK_SND_NXT);
	READ(unacked, sk, TCP_SOCK_SND_UNA);
	READ(written, sk, TCP_SOCK_WRITE_SEQ);
	READ(sent, sk, TCP_SOCK_BYTES_SENT);
	READ(retransmitted, sk, TCP_SOCK_BYTES_RETRANS);
	READ(acked, sk, TCP_SOCK_BYTES_ACKED);
	extra = acked + (u32)(next - unacked) - (sent - retransmitted);
	if (is_closing(state) && next == written)
		extra--; /* the FIN */
	return extra == 1 ? ROLE_CLIENT : extra == 0 ? ROLE_SERVER : ROLE_UNKNOWN;
}

/*
 * `retransmitted` segments of a socket that is older than the collector are in its totals
 * already.
 */
static __always_inline struct tracked_socket *track(void *sk, u32 role, int from, u32 retransmitted)
{
	u64 id = (u64)sk;
	int slot = 0;
	struct flow_key key = {};
	struct tracked_socket *tracked, *empty = no_socket.lookup(&slot);
	struct totals *seen;
#ifdef READ_OWNERS
	struct control *here = control.lookup(&slot);
#endif

	if (!empty || !read_socket_key(sk, &key))
		return 0;
	sockets.update(&id, empty);
	tracked = sockets.lookup(&id);
	if (!tracked) {
		if (!untracked.insert(&id, &id))
			count_lost(LOST_SOCKETS);
		return 0;
	}
	__builtin_memcpy(&tracked->key, &key, sizeof(key));
	seen = &tracked->seen[0];
	if (from == FROM_NOW) {
		read_totals(sk, seen);
		READ(seen->path_mtu, sk, ICSK_PMTU_COOKIE);
		seen->opened = 1;
		if (retransmitted) {
			seen->total_retrans -= retransmitted;
			seen->segs_out -= retransmitted;
			seen->data_segs_out -= retransmitted;
		} else {
			leave_out_what_is_in_flight(sk, seen);
		}
	}
	if (from == FROM_ACCEPT)
		READ(seen->total_retrans, sk, TCP_SOCK_TOTAL_RETRANS);
	seen->role = role;
#ifdef READ_OWNERS
	if (here && here->node_network == key.netns)
		tracked->owner = owner_of(sk);
#endif
	return commit(tracked, 0, bpf_ktime_get_ns() << SLOT_BITS) ? tracked : 0;
}

/*
 * Whether an entry belongs to an earlier use of this socket's memory: connect()
 * after disconnect() gives a socket another port and restarts its totals, and a
 * socket whose end no hook saw leaves its entry behind.
 */
static __always_inline int is_stale(void *sk, struct tracked_socket *tracked)
{
	struct flow_key key = {};
	u64 *one = (u64 *)&key, *other = (u64 *)&tracked->key;

	if (!read_socket_key(sk, &key))
		return 1;
	return one[0] != other[0] || one[1] != other[1] || one[2] != other[2] ||
	       one[3] != other[3] || one[4] != other[4];
}

/*
 * What programs with other maps counted of a socket last, from now on in these maps. Hooks hold
 * the socket's lock, so nobody has it half done.
 */
static __always_inline struct tracked_socket *take_over(u64 id)
{
	struct tracked_socket *before = sockets_before.lookup(&id), *tracked;

	if (!before || sockets.insert(&id, before))
		return 0;
	sockets_before.delete(&id);
	tracked = sockets.lookup(&id);
	if (tracked)
		tracked->sampled_at = 0; /* it was in the `changed` of those maps */
	return tracked;
}

static __always_inline struct tracked_socket *find_tracked(u64 id)
{
	struct tracked_socket *tracked = sockets.lookup(&id);

	return tracked ? tracked : take_over(id);
}

#ifdef SAMPLE_ONCE_A_TICK
/*
 * Puts a socket into `changed`, unless it is there. If that is full, every segment is
 * sampled.
 */
static __always_inline void remember_changed(u64 id, struct tracked_socket *tracked, u64 tick,
					     u64 interval)
{
	u64 before = *(volatile u64 *)&tracked->sampled_at;
	struct changed_socket entry = {.id = id, .put_back_in = interval};

	if (before) {
		/* Unless it was taken out at this moment. */
		__sync_bool_compare_and_swap(&tracked->sampled_at, before, tick);
		return;
	}
	tracked->sampled_at = tick;
	if (changed.push(&entry, 0))
		tracked->sampled_at = 0;
}
#endif

/* The client's port is not chosen yet: the time is all that can be kept. */
static __always_inline void connect_begins(void *sk)
{
	u64 id = (u64)sk, now = bpf_ktime_get_ns();

	connecting.update(&id, &now);
}

/* How long it took, or 0 if its beginning was not seen. */
static __always_inline u32 connect_ends(void *sk)
{
	u64 id = (u64)sk, *began = connecting.lookup(&id), took;

	if (!began)
		return 0;
	took = (bpf_ktime_get_ns() - *began) / 1000;
	connecting.delete(&id);
	return took ? took : 1;
}

/*
 * The error is set before the state: see tcp_reset() and tcp_write_err(). A program that
 * closes its socket leaves none; one that has waited for long has given up. Without a
 * segment, connect() found no port that is free.
 */
static __always_inline void count_failed_open(void *sk, struct tracked_socket *tracked,
					      struct flow_record *record, u32 took_us)
{
	struct totals *seen = seen_of(tracked);
	int error = 0, waited;

	READ(error, sk, SOCK_ERR);
	waited = seen->total_retrans || took_us >= LONG_WAIT_US;
	if (error == 0 && seen->role == ROLE_CLIENT && seen->segs_out && !waited) {
		__sync_fetch_and_add(&record->cancelled_opens, 1);
		return;
	}
	__sync_fetch_and_add(&record->failed_opens, 1);
	if (error == ECONNREFUSED)
		__sync_fetch_and_add(&record->refused_opens, 1);
	else if (error == EHOSTUNREACH || error == ENETUNREACH)
		__sync_fetch_and_add(&record->unreachable_opens, 1);
	else if (error == ETIMEDOUT || (error == 0 && waited))
		__sync_fetch_and_add(&record->timed_out_opens, 1);
}

#ifdef SAMPLE_ONCE_A_TICK
static __always_inline void half_closes(void *sk)
{
	u64 id = (u64)sk;
	struct tracked_socket *tracked = find_tracked(id);

	if (tracked)
		remember_changed(id, tracked, bpf_jiffies64(), 0);
}
#endif

/*
 * Handshakes end here, at either end, successfully or not. Only the state before
 * tells a client from a server, and a retransmitted SYN from a data segment. A
 * connect that fails never becomes an established socket, so no other hook sees it.
 */
int on_set_state(struct bpf_raw_tracepoint_args *ctx)
{
	void *sk = (void *)ctx->args[0];
	int before = ctx->args[1], after = ctx->args[2];
	u16 protocol = 0;
	u32 took = 0;
	u64 id = (u64)sk;
	int begins = after == TCP_SYN_SENT, opened = after == TCP_ESTABLISHED;
	int is_client = before == TCP_SYN_SENT;
	struct tracked_socket *tracked;
	struct flow_record *record;

	if (!is_active())
		return 0;
#ifdef COUNT_LOOKUPS
	give_up_lookups();
#endif
#ifdef SAMPLE_ONCE_A_TICK
	if (before == TCP_ESTABLISHED && is_half_closed(after)) {
		half_closes(sk);
		return 0;
	}
#endif
	if (!begins && !is_client && before != TCP_SYN_RECV)
		return 0;
	if (!begins && !opened && after != TCP_CLOSE)
		return 0;
	/* Wider than a byte: IPPROTO_MPTCP is 262. */
	READ(protocol, sk, SOCK_PROTOCOL);
	if (protocol != IPPROTO_TCP)
		return 0;
	if (begins) {
		connect_begins(sk);
		return 0;
	}
	if (is_client)
		took = connect_ends(sk);

	tracked = find_tracked(id);
	/* What has been open cannot open: that was an earlier use of the same ports. */
	if (!tracked || seen_of(tracked)->opened || is_stale(sk, tracked))
		tracked = track(sk, is_client ? ROLE_CLIENT : ROLE_SERVER,
				is_client ? FROM_ZERO : FROM_ACCEPT, 0);
	if (!tracked)
		return 0;
	record = sample(sk, tracked, BY_HOOK, is_client, opened);
	if (!record)
		count_lost(LOST_FLOW_UPDATES);
	else if (!opened)
		count_failed_open(sk, tracked, record, took);
	else if (took)
		record->connect_us = took;
	if (!opened)
		sockets.delete(&id);
	return 0;
}

/* Between two times in jiffies, the second of which is now; 0 until a tick has passed. */
static __always_inline u64 microseconds_since(u32 before, u64 now)
{
	int slot = 0;
	struct control *here = control.lookup(&slot);
	u64 ticks;

	if (!here || now <= here->started)
		return 0;
	ticks = now - here->started;
	return (u32)((u32)now - before) * ((bpf_ktime_get_ns() - here->started_ns) / ticks) / 1000;
}

/*
 * How long a server took: from the last data that its client sent to the first that came back,
 * as the kernel keeps these times, in jiffies. This runs before the segment is processed. If data
 * was received in the tick in which the last was sent, it came first only if it is what was looked
 * at then, or else it was the answer.
 */
static __always_inline void count_answer(void *sk, void *skb, struct tracked_socket *tracked,
					 struct flow_record *record)
{
	struct totals *seen = seen_of(tracked);
	u32 sequence[2] = {}, sent = 0, received = 0;
	u64 now = bpf_jiffies64(), took;
	u8 flags = 0;
	int is_asked, is_first;

	READ(sequence, skb, SK_BUFF_CB + TCP_SKB_CB_SEQ);
	READ(flags, skb, SK_BUFF_CB + TCP_SKB_CB_FLAGS);
	if (sequence[1] - sequence[0] <= (flags & TCP_FIN))
		return;
	READ(sent, sk, TCP_SOCK_LSNDTIME);
	READ(received, sk, ICSK_LRCVTIME);
	/* A tick may have passed between the look at a segment and its processing. */
	is_first = !seen->bytes_received || sent - tracked->answered_at <= 1;
	is_asked = seen->data_segs_out != tracked->answered;
	if (is_asked && ((s32)(sent - received) > 0 || (sent == received && is_first))) {
		took = microseconds_since(sent, now);
		__sync_fetch_and_add(&record->answers, 1);
		__sync_fetch_and_add(&record->answers_us,
				     took < LONGEST_ANSWER_US ? took : LONGEST_ANSWER_US);
	}
	tracked->answered = seen->data_segs_out;
	tracked->answered_at = now;
}

/*
 * Each segment that an established connection receives (tcp_probe, at the top of
 * tcp_rcv_established). A healthy connection has no other event between its opening
 * and its end, and its totals and RTT change with what it receives. What it has sent
 * in the meantime is in the totals, too.
 *
 * Where count_rest can be run, a socket is sampled once a tick; it then picks up the rest.
 */
int on_segment(struct bpf_raw_tracepoint_args *ctx)
{
	void *sk = (void *)ctx->args[0];
	u64 id = (u64)sk;
	struct tracked_socket *tracked = sockets.lookup(&id);
	struct flow_record *record;

#ifdef SAMPLE_ONCE_A_TICK
	u64 tick = bpf_jiffies64();

	if (tracked && tracked->sampled_at == tick)
		return 0;
#endif
	if (!is_active())
		return 0;
	if (!tracked)
		tracked = take_over(id);
	if (!tracked)
		tracked = track(sk, role_of(sk), was_skipped(sk) ? FROM_ZERO : FROM_NOW, 0);
	if (!tracked)
		return 0;
	record = sample(sk, tracked, BY_HOOK, 0, 0);
	if (record && seen_of(tracked)->role == ROLE_CLIENT)
		count_answer(sk, (void *)ctx->args[1], tracked, record);
#ifdef SAMPLE_ONCE_A_TICK
	remember_changed(id, tracked, tick, 0);
#endif
	return 0;
}

#ifdef SAMPLE_ONCE_A_TICK
/*
 * Run by the service at the end of each interval, without a tracepoint, until it finds
 * none: adds what sockets have counted since on_segment sampled them. What arrives once
 * one end has sent its FIN passes no hook, so those sockets are put back for the next
 * interval, and those for which the map had no room. The argument is a number for the
 * interval; returns how much it found.
 */
int count_rest(struct bpf_raw_tracepoint_args *ctx)
{
	u64 interval = ctx->args[0], tick = bpf_jiffies64();
	struct changed_socket next = {};
	struct tracked_socket *tracked;
	struct flow_record *record;
	u8 state;
	int taken;

	if (!is_active())
		return 0;
	for (taken = 0; taken < DRAINED_AT_ONCE; taken++) {
		if (changed.peek(&next) || next.put_back_in == interval || changed.pop(&next))
			break;
		tracked = sockets.lookup(&next.id);
		if (!tracked || *(volatile u64 *)&tracked->latest == 0)
			continue;
		/* What comes after this is in `changed` again; what came before is in the totals. */
		__sync_lock_test_and_set(&tracked->sampled_at, 0);
		if (is_stale((void *)next.id, tracked))
			continue;
		record = sample((void *)next.id, tracked, BY_DRAIN, 0, 0);
		state = 0;
		READ(state, next.id, SOCK_COMMON_STATE);
		if (!record || is_half_closed(state))
			remember_changed(next.id, tracked, tick, interval);
	}
#ifdef COUNT_LOOKUPS
	taken += give_up_lookups();
#endif
	return taken;
}
#endif

/*
 * Where count_rest cannot be run: a program reads what a connection received
 * (tcp_rcv_space_adjust, in tcp_recvmsg_locked). on_segment does not see what arrives
 * once this end has sent its FIN, which may go on for long: a client that only waits for
 * the answer.
 */
int on_read(struct bpf_raw_tracepoint_args *ctx)
{
	void *sk = (void *)ctx->args[0];
	u64 id = (u64)sk;
	u8 state = 0;
	struct tracked_socket *tracked;

	READ(state, sk, SOCK_COMMON_STATE);
	if (state == TCP_ESTABLISHED || !is_active())
		return 0;
	tracked = find_tracked(id);
	if (tracked)
		sample(sk, tracked, BY_HOOK, 0, 0);
	return 0;
}

/*
 * A tail loss probe leaves the congestion state open and its timer pending; after
 * a retransmission timeout the state is loss until the whole window is acked.
 */
static __always_inline void count_cause(void *sk, struct flow_record *record, u32 segments)
{
	u8 pending = 0, congestion = 0;

	READ(pending, sk, ICSK_PENDING);
	READ(congestion, sk, ICSK_CA_STATE);
	congestion &= 0x1f; /* a bit-field */
	if (congestion == TCP_CA_LOSS)
		__sync_fetch_and_add(&record->retransmitted_after_timeout, segments);
	else if (congestion == TCP_CA_RECOVERY)
		__sync_fetch_and_add(&record->retransmitted_in_fast_recovery, segments);
	else if (pending == ICSK_TIME_LOSS_PROBE)
		__sync_fetch_and_add(&record->retransmitted_by_tail_loss_probe, segments);
}

/*
 * While the peer is unreachable nothing is received, so on_segment does not run, and
 * only this hook shows the retransmissions. total_retrans already includes the
 * segment. A retransmission on a socket older than the collector is counted from the packet
 * itself, because the socket's totals also include what came before.
 */
int on_retransmit(struct bpf_raw_tracepoint_args *ctx)
{
	void *sk = (void *)ctx->args[0], *skb = (void *)ctx->args[1];
	u64 id = (u64)sk;
	u8 state = 0;
	u16 segments = 0;
	u32 before, after;
	struct tracked_socket *tracked;
	struct flow_record *record;

	if (!is_active())
		return 0;
	tracked = find_tracked(id);
	READ(state, sk, SOCK_COMMON_STATE);
	READ(segments, skb, SK_BUFF_CB + TCP_SKB_CB_GSO_SEGS);
	if (segments == 0)
		segments = 1;
	if (!tracked && state == TCP_SYN_SENT)
		tracked = track(sk, ROLE_CLIENT, FROM_ZERO, 0);
	else if (!tracked)
		tracked = track(sk, role_of(sk), was_skipped(sk) ? FROM_ZERO : FROM_NOW, segments);
	if (!tracked)
		return 0;
	before = seen_of(tracked)->total_retrans;
	record = sample(sk, tracked, BY_HOOK, state == TCP_SYN_SENT, 0);
	after = seen_of(tracked)->total_retrans;
	/* It may be counted already, by count_rest, but its cause is not. */
	if (record && state != TCP_SYN_SENT)
		count_cause(sk, record, after != before ? after - before : segments);
	return 0;
}

/*
 * A connection request has no socket of its own, and so no totals: its SYN-ACKs are
 * counted as they are retransmitted. sk is its listener.
 */
int on_retransmit_synack(struct bpf_raw_tracepoint_args *ctx)
{
	void *sk = (void *)ctx->args[0], *request = (void *)ctx->args[1];
	u8 state = 0;
	struct flow_key key = {};
	struct flow_record *record;

	if (!is_active())
		return 0;
	READ(state, sk, SOCK_COMMON_STATE);
	/* With TCP Fast Open the child counts it, and the next sample picks it up. */
	if (state != TCP_LISTEN || !read_key(request, &key))
		return 0;
	record = record_of(&key, ROLE_SERVER);
	if (!record) {
		count_lost(LOST_FLOW_UPDATES);
		return 0;
	}
	record->role = ROLE_SERVER;
	__sync_fetch_and_add(&record->segments_sent, 1);
	__sync_fetch_and_add(&record->retransmitted_segments, 1);
	__sync_fetch_and_add(&record->retransmitted_synacks, 1);
	return 0;
}

/* The last chance to read a socket's totals: they also have what no other hook saw. */
int on_destroy(struct bpf_raw_tracepoint_args *ctx)
{
	void *sk = (void *)ctx->args[0];
	u64 id = (u64)sk;
	struct tracked_socket *tracked;
	struct flow_record *record;

	if (!is_active())
		return 0;
	tracked = find_tracked(id);
	if (!tracked) {
		untracked.delete(&id);
		return 0;
	}
	/* A failed connect is already gone from the map, so this is not a SYN. */
	record = sample(sk, tracked, BY_HOOK, 0, 0);
	if (!record)
		count_lost(LOST_FLOW_UPDATES);
#ifdef COUNT_LOOKUPS
	else if (asks_dns(tracked) && seen_of(tracked)->data_segs_out &&
		 seen_of(tracked)->bytes_received < DNS_HEADER_BYTES)
		__sync_fetch_and_add(&record->dns_unanswered, 1);
#endif
	sockets.delete(&id);
	return 0;
}

/* The flow of a socket that sent or received a reset, and its role if that is known. */
static __always_inline int read_reset_key(void *sk, struct flow_key *key, u8 *role)
{
	u64 id = (u64)sk;
	struct tracked_socket *tracked = find_tracked(id);

	if (tracked) {
		__builtin_memcpy(key, &tracked->key, sizeof(*key));
		*role = seen_of(tracked)->role;
		return 1;
	}
	return read_key(sk, key);
}

/*
 * No socket counts its resets, so they are counted as events. A reset without a
 * connection answers a packet; its flow is that packet's, reversed.
 */
int on_send_reset(struct bpf_raw_tracepoint_args *ctx)
{
	void *sk = (void *)ctx->args[0], *skb = (void *)ctx->args[1];
	struct flow_key key = {}, answered = {};
	struct flow_record *record;
	u8 state = TCP_LISTEN, role = ROLE_UNKNOWN;

	if (!is_active())
		return 0;
	if (sk)
		READ(state, sk, SOCK_COMMON_STATE);
	if (state != TCP_LISTEN) {
		if (!read_reset_key(sk, &key, &role))
			return 0;
	} else {
		if (!skb || !read_packet_key(skb, &answered))
			return 0;
		__builtin_memcpy(key.src, answered.dst, 16);
		__builtin_memcpy(key.dst, answered.src, 16);
		key.src_port = answered.dst_port;
		key.dst_port = answered.src_port;
		key.netns = answered.netns;
	}
	record = record_of(&key, role);
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
	u8 role = ROLE_UNKNOWN;

	if (!is_active() || !read_reset_key(sk, &key, &role))
		return 0;
	record = record_of(&key, role);
	if (record)
		__sync_fetch_and_add(&record->resets_received, 1);
	else
		count_lost(LOST_FLOW_UPDATES);
	return 0;
}

/* Where in drop_offsets a reason is; slot 0 counts nothing. */
static __always_inline u32 slot_of(u32 reason)
{
	u32 subsystem = reason >> SUBSYSTEM_SHIFT;

	if (subsystem == 0)
		return reason < FIRST_QDISC_SLOT ? reason : 0;
	return subsystem == QDISC_SUBSYSTEM ? FIRST_QDISC_SLOT + reason % QDISC_SLOTS : 0;
}

/* Show the verifier that the offset is aligned and inside the record. */
static __always_inline void add_at(struct flow_record *record, u32 offset, u32 count)
{
	u32 at = offset & 0x1fc;

	if (at <= sizeof(*record) - sizeof(u32))
		__sync_fetch_and_add((u32 *)((void *)record + at), count);
}

/*
 * The kernel's drop reasons are per packet, and the packet may belong to no socket on
 * this node, so the flow is read from its headers.
 */
int on_drop(struct bpf_raw_tracepoint_args *ctx)
{
	void *skb = (void *)ctx->args[0];
	u32 slot = slot_of(ctx->args[2]), segments;
	struct drop_counters *offsets = drop_offsets.lookup(&slot);
	struct flow_key key = {};
	struct flow_record *record;

	if (!is_active())
		return 0;
	if (!offsets || offsets->of_kind == 0 || !read_packet_key(skb, &key))
		return 0;
	record = record_of(&key, ROLE_UNKNOWN);
	if (!record) {
		count_lost(LOST_FLOW_UPDATES);
		return 0;
	}
	segments = segments_of(skb);
	add_at(record, offsets->of_kind, segments);
	add_at(record, offsets->of_reason, segments);
	return 0;
}

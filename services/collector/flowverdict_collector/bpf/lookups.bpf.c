// SPDX-License-Identifier: GPL-2.0
/*
 * Counts lookups of names over UDP (RFC 1035), at the end that asks; compiled after
 * flows.bpf.c if they are wanted.
 *
 * A lookup is known by its addresses, ports and id. Each may come from another port,
 * so those of one client and one server are counted in one record, with source port 0.
 */

#define IPPROTO_UDP 17
#define DNS_PORT 53
#define DNS_IS_ANSWER 0x80
#define DNS_OPCODE 0x78
#define DNS_CODE 0x0f
#define DNS_NAME_ERROR 3

/* How long resolvers wait before they ask again (RES_TIMEOUT, resolv.conf(5)). */
#define PATIENCE_NS 5000000000ULL
#define GIVEN_UP_AT_ONCE 4

struct lookup_key {
	struct flow_key flow;
	u16 id;
	u16 unused[3];
};

struct lookup {
	struct lookup_key key;
	u64 began;
};

BPF_TABLE("hash", struct lookup_key, u64, lookups, MAX_LOOKUPS);
/* All of them in the order in which they began, also those answered since. */
BPF_QUEUE(begun, struct lookup, MAX_LOOKUPS);

/* The first bytes of a DNS message: its id, flags and code. */
struct dns_start {
	u16 id;
	u8 flags;
	u8 code;
};

static __always_inline struct flow_record *record_of_lookup(struct lookup_key *key)
{
	struct flow_key flow;
	struct flow_record *record;

	__builtin_memcpy(&flow, &key->flow, sizeof(flow));
	flow.src_port = 0;
	record = record_of(&flow, ROLE_CLIENT);
	if (record)
		record->role = ROLE_CLIENT;
	else
		count_lost(LOST_FLOW_UPDATES);
	return record;
}

/* Those that nobody has answered for too long; returns how many were looked at. */
static __always_inline int give_up_lookups(void)
{
	struct lookup oldest = {};
	u64 now = bpf_ktime_get_ns(), *began;
	struct flow_record *record;

	int i;

	for (i = 0; i < GIVEN_UP_AT_ONCE; i++) {
		if (begun.peek(&oldest) || now - oldest.began < PATIENCE_NS || begun.pop(&oldest))
			break;
		began = lookups.lookup(&oldest.key);
		if (!began || *began != oldest.began)
			continue;
		lookups.delete(&oldest.key);
		record = record_of_lookup(&oldest.key);
		if (record)
			__sync_fetch_and_add(&record->dns_unanswered, 1);
	}
	return i;
}

/*
 * A packet goes to a device (net_dev_queue). On its way through other namespaces it no
 * longer has a socket.
 */
int on_packet_sent(struct bpf_raw_tracepoint_args *ctx)
{
	void *skb = (void *)ctx->args[0], *sk = 0, *net = 0, *udp;
	u16 protocol = 0;
	struct lookup asked = {};
	struct dns_start dns = {};
	struct flow_record *record;

	READ(sk, skb, SK_BUFF_SK);
	if (!sk)
		return 0;
	READ(protocol, sk, SOCK_PROTOCOL);
	if (protocol != IPPROTO_UDP || !is_active())
		return 0;
	udp = read_packet(skb, IPPROTO_UDP, &asked.key.flow);
	if (!udp || asked.key.flow.dst_port != DNS_PORT)
		return 0;
	READ(dns, udp, 8);
	if (dns.flags & (DNS_IS_ANSWER | DNS_OPCODE))
		return 0;
	READ(net, sk, SOCK_COMMON_NET);
	if (net)
		READ(asked.key.flow.netns, net, NET_INUM);
	asked.key.id = dns.id;
	asked.began = bpf_ktime_get_ns();
	/* One that is asked again is still the same. */
	if (lookups.lookup(&asked.key))
		return 0;
	record = record_of_lookup(&asked.key);
	if (!record)
		return 0;
	__sync_fetch_and_add(&record->dns_lookups, 1);
	if (lookups.update(&asked.key, &asked.began))
		count_lost(LOST_FLOW_UPDATES);
	else if (begun.push(&asked, 0)) {
		lookups.delete(&asked.key);
		count_lost(LOST_FLOW_UPDATES);
	}
	give_up_lookups();
	return 0;
}

/* A packet comes from a device (netif_receive_skb): its data begins with the IP header. */
int on_packet_received(struct bpf_raw_tracepoint_args *ctx)
{
	void *skb = (void *)ctx->args[0], *ip = 0, *udp, *dev = 0, *net = 0;
	struct flow_key answer = {};
	struct lookup_key key = {};
	struct dns_start dns = {};
	struct flow_record *record;
	u64 *began, took;

	READ(ip, skb, SK_BUFF_DATA);
	udp = read_headers(ip, IPPROTO_UDP, &answer);
	if (!udp || answer.src_port != DNS_PORT || !is_active())
		return 0;
	READ(dns, udp, 8);
	READ(dev, skb, SK_BUFF_DEV);
	READ(net, dev, NET_DEVICE_NET);
	READ(key.flow.netns, net, NET_INUM);
	__builtin_memcpy(key.flow.src, answer.dst, 16);
	__builtin_memcpy(key.flow.dst, answer.src, 16);
	key.flow.src_port = answer.dst_port;
	key.flow.dst_port = DNS_PORT;
	key.id = dns.id;
	began = lookups.lookup(&key);
	if (!began)
		return 0;
	took = (bpf_ktime_get_ns() - *began) / 1000;
	lookups.delete(&key);
	record = record_of_lookup(&key);
	if (!record)
		return 0;
	record->dns_answer_us = took ? took : 1;
	dns.code &= DNS_CODE;
	__sync_fetch_and_add(&record->dns_answers, 1);
	if (dns.code == DNS_NAME_ERROR)
		__sync_fetch_and_add(&record->dns_name_errors, 1);
	else if (dns.code)
		__sync_fetch_and_add(&record->dns_failures, 1);
	return 0;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * Counts lookups of names over UDP (RFC 1035), at the end that asks; compiled after
 * flows.bpf.c if they are wanted.
 *
 * A lookup is known by its addresses, ports and id. Each may come from another port, so those of
 * one client, one server and one name are counted in one record, whose source port is the number
 * of the name.
 */

#define IPPROTO_UDP 17
#define DNS_IS_ANSWER 0x80
#define DNS_OPCODE 0x78
#define DNS_CODE 0x0f
#define DNS_FORMAT_ERROR 1
#define DNS_SERVER_FAILURE 2
#define DNS_NAME_ERROR 3
#define DNS_NOT_IMPLEMENTED 4
#define DNS_REFUSED 5

/* How long resolvers wait before they ask again (RES_TIMEOUT, resolv.conf(5)). */
#define PATIENCE_NS 5000000000ULL
#define GIVEN_UP_AT_ONCE 4

/* Where a name may be, from where its hash says. */
#define PLACES 4
/* FNV-1a, 64 bits (draft-eastlake-fnv). */
#define FNV_BASIS 14695981039346656037ULL
#define FNV_PRIME 1099511628211ULL

struct lookup_key {
	struct flow_key flow;
	u16 id;
	u16 unused[3];
};

struct pending_lookup {
	u64 began;
	u64 name; /* its number */
};

struct lookup {
	struct lookup_key key;
	u64 began;
};

/* As in a query, in lower case, followed by zeros; a longer one is cut. */
struct looked_up_name {
	u64 hash;
	u64 used; /* last, in nanoseconds of the monotonic clock */
	u8 text[NAME_BYTES];
};

BPF_TABLE("hash", struct lookup_key, struct pending_lookup, lookups, MAX_LOOKUPS);
/* All of them in the order in which they began, also those answered since. */
BPF_QUEUE(begun, struct lookup, MAX_LOOKUPS);
/* How many of them are pending: while none is, a packet that comes in is not looked at. */
BPF_ARRAY(pending_lookups, u64, 1);
/* The number of a name is its place here; 0 is none. */
BPF_ARRAY(names, struct looked_up_name, MAX_NAMES);
/* From when on the service needs the names that were used; written by it. */
BPF_ARRAY(names_needed_since, u64, 1);
BPF_PERCPU_ARRAY(asked_name, struct looked_up_name, 1);

/* The first bytes of a DNS message: its id, flags and code. */
struct dns_start {
	u16 id;
	u8 flags;
	u8 code;
};

/* Forget a lookup; 0 if somebody else just has. */
static __always_inline int forget(struct lookup_key *key)
{
	int slot = 0;
	u64 *pending = pending_lookups.lookup(&slot);

	if (lookups.delete(key))
		return 0;
	if (pending)
		__sync_fetch_and_add(pending, -1);
	return 1;
}

/* How many bytes of the packet follow, as far as they are not in pages. */
static __always_inline long bytes_from(void *skb, void *udp, void *at)
{
	void *head = 0;
	u32 tail = 0;
	u16 length = 0;
	long in_packet, in_memory;

	READ(head, skb, SK_BUFF_HEAD);
	READ(tail, skb, SK_BUFF_TAIL);
	READ(length, udp, 4);
	in_packet = udp + swap16(length) - at;
	in_memory = head + tail - at;
	return in_packet < in_memory ? in_packet : in_memory;
}

/*
 * Copies the name of a question in lower case; it ends with a label without any bytes. There is none
 * if the packet ends before that: what follows in memory is not part of it.
 */
static __always_inline struct looked_up_name *read_name(void *question, long room)
{
	int slot = 0;
	struct looked_up_name *name = asked_name.lookup(&slot);
	u64 hash = FNV_BASIS;
	u8 byte, in_name = 1;

	if (!name || room <= 0)
		return 0;
	bpf_probe_read_kernel(name->text, NAME_BYTES, question);
	for (int i = 0; i < NAME_BYTES; i++) {
		byte = name->text[i];
		if (in_name && i >= room)
			return 0;
		in_name = in_name && byte;
		if (byte >= 'A' && byte <= 'Z')
			byte += 'a' - 'A';
		if (!in_name)
			byte = 0;
		name->text[i] = byte;
		hash = (hash ^ byte) * FNV_PRIME;
	}
	name->hash = hash;
	return name;
}

/*
 * Gives an entry to another name, if nobody will ask which one it was. Whoever changes `used` first
 * has it; where the kernel lacks the instruction, two names may get one number if two processors
 * look at it at the same moment.
 */
static __always_inline int claim(struct looked_up_name *entry, u64 hash, u64 now)
{
	int slot = 0;
	u64 *since = names_needed_since.lookup(&slot);
	u64 used = *(volatile u64 *)&entry->used;

	if (used && (!since || used >= *since || now - used <= 2 * PATIENCE_NS))
		return 0;
#ifdef SAMPLE_ONCE_A_TICK
	if (!__sync_bool_compare_and_swap(&entry->used, used, now))
		return 0;
#else
	entry->used = now;
#endif
	entry->hash = hash;
	return 1;
}

/* The number of the name of a question; 0 if it has none, or there is no room for it. */
static __always_inline u32 number_of_name(struct looked_up_name *name, u64 now)
{
	struct looked_up_name *entry;
	u32 number;

	if (!name)
		return 0;
	for (int i = 0; i < PLACES; i++) {
		number = (name->hash + i) % MAX_NAMES;
		entry = names.lookup(&number);
		if (entry && number && entry->hash == name->hash) {
			entry->used = now; /* so that nobody claims it meanwhile */
			return number;
		}
	}
	for (int i = 0; i < PLACES; i++) {
		number = (name->hash + i) % MAX_NAMES;
		entry = names.lookup(&number);
		if (!entry || !number || !claim(entry, name->hash, now))
			continue;
		__builtin_memcpy(entry->text, name->text, NAME_BYTES);
		return number;
	}
	return 0;
}

static __always_inline struct flow_record *record_of_lookup(struct lookup_key *key, u32 number)
{
	struct flow_key flow;
	struct flow_record *record;
	struct looked_up_name *name;

	__builtin_memcpy(&flow, &key->flow, sizeof(flow));
	flow.src_port = number;
	record = record_with(&flow);
	if (!record) {
		count_lost(LOST_FLOW_UPDATES);
		return 0;
	}
	record->role = ROLE_CLIENT;
	record->dns_name = number;
	name = names.lookup(&number);
	if (name)
		name->used = bpf_ktime_get_ns();
	return record;
}

/* Those that nobody has answered for too long; returns how many were looked at. */
static __always_inline int give_up_lookups(void)
{
	struct lookup oldest = {};
	u64 now = bpf_ktime_get_ns();
	struct pending_lookup *pending;
	struct flow_record *record;
	u32 name;
	int i;

	for (i = 0; i < GIVEN_UP_AT_ONCE; i++) {
		if (begun.peek(&oldest) || now - oldest.began < PATIENCE_NS || begun.pop(&oldest))
			break;
		pending = lookups.lookup(&oldest.key);
		if (!pending || pending->began != oldest.began)
			continue;
		name = pending->name;
		if (!forget(&oldest.key))
			continue;
		record = record_of_lookup(&oldest.key, name);
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
	void *skb = (void *)ctx->args[0], *sk = 0, *net = 0, *udp, *question;
	u16 protocol = 0;
	struct lookup asked = {};
	struct pending_lookup pending = {};
	int slot = 0;
	u64 *count;
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
	pending.began = asked.began;
	question = udp + 8 + DNS_HEADER_BYTES;
	pending.name = number_of_name(read_name(question, bytes_from(skb, udp, question)),
				      asked.began);
	record = record_of_lookup(&asked.key, pending.name);
	if (!record)
		return 0;
	__sync_fetch_and_add(&record->dns_lookups, 1);
	if (lookups.update(&asked.key, &pending)) {
		count_lost(LOST_FLOW_UPDATES);
		return 0;
	}
	count = pending_lookups.lookup(&slot);
	if (count)
		__sync_fetch_and_add(count, 1);
	if (begun.push(&asked, 0)) {
		forget(&asked.key);
		count_lost(LOST_FLOW_UPDATES);
	}
	give_up_lookups();
	return 0;
}

static __always_inline void count_failure(struct flow_record *record, u8 code)
{
	__sync_fetch_and_add(&record->dns_failures, 1);
	if (code == DNS_SERVER_FAILURE)
		__sync_fetch_and_add(&record->dns_server_failures, 1);
	else if (code == DNS_REFUSED)
		__sync_fetch_and_add(&record->dns_refused, 1);
	else if (code == DNS_FORMAT_ERROR)
		__sync_fetch_and_add(&record->dns_format_errors, 1);
	else if (code == DNS_NOT_IMPLEMENTED)
		__sync_fetch_and_add(&record->dns_not_implemented, 1);
}

/* A packet comes from a device (netif_receive_skb): its data begins with the IP header. */
int on_packet_received(struct bpf_raw_tracepoint_args *ctx)
{
	void *skb = (void *)ctx->args[0], *ip = 0, *udp, *dev = 0, *net = 0;
	struct flow_key answer = {};
	struct lookup_key key = {};
	struct dns_start dns = {};
	struct flow_record *record;
	struct pending_lookup *pending;
	int slot = 0;
	u64 took, *count = pending_lookups.lookup(&slot);
	u32 name;

	if (!count || *count == 0)
		return 0;
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
	pending = lookups.lookup(&key);
	if (!pending)
		return 0;
	took = (bpf_ktime_get_ns() - pending->began) / 1000;
	name = pending->name;
	if (!forget(&key))
		return 0;
	record = record_of_lookup(&key, name);
	if (!record)
		return 0;
	record->dns_answer_us = took ? took : 1;
	dns.code &= DNS_CODE;
	__sync_fetch_and_add(&record->dns_answers, 1);
	if (dns.code == DNS_NAME_ERROR)
		__sync_fetch_and_add(&record->dns_name_errors, 1);
	else if (dns.code)
		count_failure(record, dns.code);
	return 0;
}

//! The rules, as text for `nft -f`.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use innkeeper_facilities::PROBE_MARK;
use innkeeper_model::PROBE_DSCP;
use ipnet::Ipv4Net;

use super::{FirewallConfig, Protocol, WebPorts};
use crate::network::INTERFACE_GROUP;

/// The networks that guests must not reach: private networks (RFC 1918), carriers' networks (RFC 6598), link-local
/// addresses with the clouds' metadata service (RFC 3927), loopback, multicast and reserved networks.
const REFUSED: [&str; 8] = [
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "224.0.0.0/4",
    "240.0.0.0/4",
];

/// The sets in which the kernel counts guests' own connections.
const CONNECTIONS: [&str; 2] = ["open_connections", "new_connections"];

/// The sets in which the kernel counts packets to guests, packets from guests, and those that open a connection to a guest.
pub(super) const TO_GUESTS: &str = "to_guests";
pub(super) const FROM_GUESTS: &str = "from_guests";
pub(super) const OPENED: &str = "opened_to_guests";

/// The set of paused guests, from which the kernel deletes each that receives a packet.
pub(super) const PAUSED: &str = "paused_guests";

/// The set of sleeping guests that received a packet, to which the kernel adds them.
pub(super) const REACHED: &str = "reached_guests";

/// The set of guests that start, from which the kernel deletes each after [`STARTING_SECONDS`].
pub(super) const STARTING: &str = "starting_guests";

/// The time for which a guest that was asleep refuses no connection.
const STARTING_SECONDS: u32 = 30;

/// The sets whose elements new rules take over.
pub(super) const KEPT: [&str; 3] = [PAUSED, REACHED, STARTING];

/// Reports whether the kernel adds and removes the elements of a set.
pub(super) fn is_count(set: &str) -> bool {
    let counters = [TO_GUESTS, FROM_GUESTS, OPENED];
    [&CONNECTIONS[..], &counters, &KEPT].concat().contains(&set)
}

/// Returns the rules. They name no guest: they match guests' packets by the group of their interface, so rules and guests
/// change independently of each other.
///
/// The text creates the table, deletes it and creates it again in one transaction of the kernel: packets are filtered at
/// all times, other tables stay, and open connections stay open because their state is not in the table.
#[must_use]
pub fn ruleset(config: &FirewallConfig) -> String {
    let table = &config.table;
    let group = INTERFACE_GROUP;
    let subnet = config.subnet;
    // Guests of another daemon are in the same group, and subject to that daemon's rules. An interface without an address
    // may belong to any daemon.
    let from_ours = format!("ip saddr {{ {subnet}, 0.0.0.0/8 }}");
    let to_ours = format!("ip daddr {subnet}");
    let refused = list(refused(config.subnet, &config.extra_private).iter());
    let open_udp = open_ports(config, Protocol::Udp);
    let open_tcp = open_ports(config, Protocol::Tcp);
    let name_servers = name_servers(config);
    let (redirected, redirection) = redirection(config, &from_ours);
    let resolver = only_guests_reach_the_resolver(config);
    let [open, new] = CONNECTIONS;
    let counters = counters(config);
    let most = config.connections_per_guest;
    // A closed connection does not count as open, although it is tracked for up to two minutes more.
    let each_second = (most / 10).max(1);
    let log = if config.log_refusals {
        // The interface's name in the log's line identifies the guest.
        "\n\t\tlimit rate 10/second burst 20 packets log prefix \"innkeeper refused \""
    } else {
        ""
    };
    format!(
        "\
# Innkeeper's rules. They are replaced as a whole; changes made here are reported and lost.
table inet {table}
delete table inet {table}
table inet {table} {{
	# Before connection tracking, so that what a guest has no right to send costs next to nothing:
	# IPv6, which guests do not have, and sources that are not the guest's own address.
	chain antispoofing {{
		type filter hook prerouting priority raw; policy accept;
		iifgroup {group} meta nfproto ipv6 counter drop
		iifgroup {group} fib saddr . iif oif missing counter drop
	}}

	# At the usual priority, because order does not matter there: an accept is one table's opinion,
	# and a drop of any table is final.
	chain input {{
		type filter hook input priority filter; policy accept;
		iifgroup {group} {from_ours} jump guest_to_host{resolver}
	}}

	# Only the guest's own gateway address, which is the one on the interface that the packet came by.
	chain guest_to_host {{
		ct state vmap {{ established : accept, related : accept, invalid : drop }}
		fib daddr . iif type != local goto refuse
		jump count_connections
		icmp type echo-request accept{open_udp}{open_tcp}{redirected}
		goto refuse
	}}

{redirection}	# MSS at most what fits the routes of both directions, so that TCP does not depend on ICMP.
	chain forward {{
		type filter hook forward priority filter; policy accept;
		iifgroup {group} tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
		oifgroup {group} tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu
		iifgroup {group} {from_ours} jump guest_to_world
		oifgroup {group} {to_ours} jump world_to_guest
	}}

	chain guest_to_world {{
		ct state vmap {{ established : accept, related : accept, invalid : drop }}
		oifgroup {group} goto refuse
		jump count_connections{name_servers}
		ip daddr {refused} goto refuse
		tcp dport 25 goto refuse
		accept
	}}

	# All share the kernel's table of connections (net.netfilter.nf_conntrack_max), so none may fill it: neither with
	# open connections, nor with those that were closed a moment ago. An address is one guest's: see antispoofing.
	set {open} {{
		type ipv4_addr
		size 65535
		flags dynamic
	}}

	set {new} {{
		type ipv4_addr
		size 65535
		flags dynamic
	}}

	chain count_connections {{
		add @{open} {{ ip saddr ct count over {most} }} goto refuse
		add @{new} {{ ip saddr limit rate over {each_second}/second burst {most} packets }} goto refuse
	}}

	chain world_to_guest {{
		ct state vmap {{ established : accept, related : accept }}
		counter drop
	}}

	# An answer instead of silence, so that nothing in a guest waits for a timeout.
	chain refuse {{{log}
		counter
		meta l4proto tcp reject with tcp reset
		reject with icmpx admin-prohibited
	}}

	# After every filter, so that they all see the packet before its source is replaced.
	chain masquerading {{
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr {subnet} oifgroup != {group} oifname != \"lo\" masquerade
	}}

	# What the host itself sends passes no forward hook.
	chain no_ipv6_to_guests {{
		type filter hook postrouting priority filter; policy accept;
		oifgroup {group} meta nfproto ipv6 counter drop
	}}

{counters}}}
"
    )
}

/// Returns rules in which a set has elements from the start.
pub(super) fn with_elements(rules: &str, set: &str, guests: &BTreeSet<Ipv4Addr>) -> String {
    if guests.is_empty() {
        return rules.to_owned();
    }
    let head = format!("\tset {set} {{\n");
    let elements = list(guests.iter());
    rules.replacen(&head, &format!("{head}\t\telements = {elements}\n"), 1)
}

/// Returns rules that log nothing, for a kernel that cannot (`nft_log`).
pub(super) fn without_log(rules: &str) -> String {
    let logs = |line: &str| line.contains("log group ") || line.contains("log prefix ");
    let lines = rules.split_inclusive('\n').filter(|line| !logs(line));
    lines.collect()
}

/// Returns the sets and chains that count each guest's packets.
fn counters(config: &FirewallConfig) -> String {
    let (group, subnet) = (INTERFACE_GROUP, config.subnet);
    let log = format!(
        "log group {} snaplen 20 queue-threshold 1",
        config.log_group
    );
    let parking = &config.parking;
    let set = |name: &str, flags: &str| {
        format!("\tset {name} {{\n\t\ttype ipv4_addr\n\t\tsize 65535\n\t\tflags {flags}\n\t}}\n\n")
    };
    let sets = [TO_GUESTS, FROM_GUESTS, OPENED, PAUSED, REACHED].map(|name| set(name, "dynamic"));
    let timeout = format!("dynamic,timeout\n\t\ttimeout {STARTING_SECONDS}s");
    let sets = [sets.concat(), set(STARTING, &timeout)].concat();
    format!(
        "\
\t# Counters that show whether a guest is in use. Innkeeper's own probes do not count: their packets have a mark, or a code
	# point where a program may not set marks. Connection tracking keeps the mark for the responses. Refused packets to a
	# guest do not reach this chain.
{sets}	chain count_to_guests {{
		type filter hook postrouting priority filter; policy accept;
		oifgroup {group} ip daddr {subnet} meta mark {PROBE_MARK:#010x} ct mark set {PROBE_MARK:#010x}
		oifgroup {group} ip daddr {subnet} ip dscp {PROBE_DSCP} ct mark set {PROBE_MARK:#010x}
		oifgroup {group} ip daddr {subnet} ct mark != {PROBE_MARK:#010x} add @{TO_GUESTS} {{ ip daddr counter }}
		oifgroup {group} ip daddr {subnet} ct state new ct mark != {PROBE_MARK:#010x} add @{OPENED} {{ ip daddr counter }}
	}}

	# A packet for which a paused guest must run: all but echo requests and bare acknowledgments of TCP, which its kernel
	# answers. It is reported once, because the guest is no longer in the set then; without the threshold, a second late.
	chain notify {{
		type filter hook postrouting priority filter; policy accept;
		meta nfproto ipv6 accept
		ip daddr != @{PAUSED} accept
		meta mark {PROBE_MARK:#010x} accept
		ip dscp {PROBE_DSCP} accept
		ct mark {PROBE_MARK:#010x} accept
		meta l4proto icmp accept
		meta l4proto != tcp goto first_packet
		tcp flags & (fin | syn | rst | psh) != 0 goto first_packet
	}}

	chain first_packet {{
		delete @{PAUSED} {{ ip daddr }}
		{log}
	}}

	# A packet to a guest that is asleep, which opens a connection: the interface discards it. It is reported once, until the
	# daemon removes the guest from the set.
	chain notify_asleep {{
		type filter hook postrouting priority filter; policy accept;
		oifname != \"{parking}\" accept
		meta nfproto ipv6 accept
		ip daddr @{REACHED} accept
		meta mark {PROBE_MARK:#010x} accept
		ip dscp {PROBE_DSCP} accept
		meta l4proto icmp accept
		meta l4proto != tcp goto reached_asleep
		tcp flags & (fin | syn | rst | ack) == syn goto reached_asleep
	}}

	chain reached_asleep {{
		add @{REACHED} {{ ip daddr }}
		{log}
	}}

	# Refusals by a guest that starts, whose servers do not listen yet: dropped, so that clients try again. Those of a TCP
	# connection have the number 0.
	chain hold_refusals {{
		type filter hook input priority filter; policy accept;
		iifgroup != {group} accept
		meta nfproto ipv6 accept
		ip saddr != @{STARTING} accept
		ct mark {PROBE_MARK:#010x} accept
		tcp flags & (syn | rst | ack) == (rst | ack) tcp sequence 0 counter drop
		icmp type destination-unreachable icmp code port-unreachable counter drop
	}}

	chain count_from_guests {{
		type filter hook prerouting priority mangle; policy accept;
		iifgroup {group} ip saddr {subnet} ct mark != {PROBE_MARK:#010x} add @{FROM_GUESTS} {{ ip saddr counter }}
	}}
"
    )
}

/// Returns the rules that accept redirected connections, and the chain that redirects them.
fn redirection(config: &FirewallConfig, from_ours: &str) -> (String, String) {
    let group = INTERFACE_GROUP;
    let (mut accept, mut chain) = (String::new(), String::new());
    let mut redirect = |to: &str, what: &str, from: &str, port: u16| {
        accept += &format!("\n\t\t{what} dport {port} ct status dnat accept");
        chain += &format!(
            "\n\t\tiifgroup {group} {from_ours} fib daddr{to} type local {what} dport {from} redirect to :{port}"
        );
    };
    if let Some(port) = config.resolver {
        redirect(" . iif", "meta l4proto { tcp, udp } th", "53", port);
    }
    if let Some(WebPorts {
        public,
        url,
        guests,
    }) = config.web
    {
        redirect("", "tcp", &public.to_string(), guests);
        if url != public {
            redirect(" . iif", "tcp", &url.to_string(), guests);
        }
    }
    if chain.is_empty() {
        return (accept, chain);
    }
    let chain = format!(
        "\
\t# Programs of the host for guests alone have ports of their own. Guests reach the web server at all addresses of the host,
	# because a name server may return any of them for a preview's host; the resolver and the port in previews' URLs, where
	# the web server has another, at their own gateway address.
	chain redirection {{
		type nat hook prerouting priority dstnat; policy accept;{chain}
	}}

"
    );
    (accept, chain)
}

/// Returns the rule that drops packets to the resolver of all others than guests and the host itself.
fn only_guests_reach_the_resolver(config: &FirewallConfig) -> String {
    let Some(port) = config.resolver else {
        return String::new();
    };
    let group = INTERFACE_GROUP;
    format!(
        "\n\t\tiifgroup != {group} iifname != \"lo\" meta l4proto {{ tcp, udp }} th dport {port} counter drop"
    )
}

/// Returns the refused networks without overlaps, which nft does not accept.
pub(super) fn refused(subnet: Ipv4Net, extra: &[Ipv4Net]) -> Vec<Ipv4Net> {
    let mut refused: Vec<Ipv4Net> = REFUSED
        .iter()
        .filter_map(|network| network.parse().ok())
        .collect();
    refused.extend(extra.iter().map(Ipv4Net::trunc));
    refused.push(subnet);
    Ipv4Net::aggregate(&refused)
}

fn name_servers(config: &FirewallConfig) -> String {
    let mut servers = config.nameservers.clone();
    servers.sort_unstable();
    servers.dedup();
    if servers.is_empty() {
        return String::new();
    }
    format!(
        "\n\t\tip daddr {} meta l4proto {{ tcp, udp }} th dport 53 accept",
        list(servers.iter())
    )
}

fn open_ports(config: &FirewallConfig, protocol: Protocol) -> String {
    let mut ports: Vec<u16> = config
        .allowed_host_ports
        .iter()
        .filter(|allowed| allowed.proto == protocol)
        .map(|allowed| allowed.port)
        .collect();
    if config.allow_dns {
        ports.push(53);
    }
    ports.sort_unstable();
    ports.dedup();
    if ports.is_empty() {
        return String::new();
    }
    format!("\n\t\t{protocol} dport {} accept", list(ports.iter()))
}

/// Formats a set in nft's notation.
pub(super) fn list(items: impl Iterator<Item = impl ToString>) -> String {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    format!("{{ {} }}", items.join(", "))
}

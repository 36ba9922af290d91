// Package flows ends what connection tracking still knows of a banned source.
//
// The ban itself does not need it where the firewall's chain runs before
// tracking (priority -300): the source's packets are dropped there, whatever
// the state of their flow. Deleting the flow buys the rest:
//
//   - With a priority above -200 the packets are tracked before they are
//     dropped, and each one renews its flow, which then never times out.
//   - The machine's own packets to the source stop where an output chain lets
//     out only what is established; without the deletion they go on, and
//     renew the flow.
//   - A TCP flow whose packets are dropped keeps its place in the table for up
//     to 5 days (nf_conntrack_tcp_timeout_established), and so do its NAT
//     mapping and, with nf_conntrack_sip, its expected media.
//   - Flows in an nftables flowtable pass by every prerouting chain. Once the
//     tracked flow is gone, the flowtable does not find it any more
//     (flow_offload_lookup, net/netfilter/nf_flow_table_core.c).
//
// The first three are tests of this package; the last is from the source.
//
// A look through 200,000 flows takes 0.1 s of kernel time for one banned
// address, which the kernel picks out itself since 5.8, and 0.4 s for several
// or for a network, with 3 MB of memory. So bans are collected while a look is
// under way, and a look takes at most a tenth of the time.
package flows

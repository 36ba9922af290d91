// Package nftrace follows a packet through the rules of the kernel's nf_tables, as nftables' own trace does with a real
// one, and through those of iptables-legacy, and finds those that another firewall drops for certain.
package nftrace

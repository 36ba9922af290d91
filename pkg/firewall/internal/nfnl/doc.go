// Package nfnl writes set elements to nf_tables: the bytes of a transaction, and the socket that takes it.
//
// google/nftables encodes an element with a dozen allocations and cannot demand that one be new (NLM_F_EXCL), so
// that a fresh ban would cost three messages. BenchmarkFlood of package firewall holds this one beside the library;
// the target is 80 % of the bare library's rate with all of Ringwall's books. When the library can demand it, this
// package can go.
package nfnl

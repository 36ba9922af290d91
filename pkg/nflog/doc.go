// Package nflog reads an NFLOG group: copies of packets that rules of netfilter make (nft's `log group`).
//
// It is made for packets that an attacker sends, as many as he likes: one goroutine, no allocation for a packet,
// bounded memory, and what is lost is counted. github.com/florianl/go-nflog spends five times as much on a packet of a
// flood (15 µs of CPU where this one takes 1 to 3, see BenchmarkReader), and on a closed socket it spins.
package nflog

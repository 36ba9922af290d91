// Package nflog reads an NFLOG group: copies of packets that rules of netfilter make (nft's `log group`).
//
// It is made for packets that an attacker sends, as many as he likes: one goroutine, no allocation for a packet,
// bounded memory, and what is lost is counted. github.com/florianl/go-nflog spends three times as much on a packet,
// and on a closed socket it spins.
package nflog

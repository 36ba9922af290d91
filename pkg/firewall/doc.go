// Package firewall keeps the kernel's nftables table: who is banned, who is always let in, and who may not be
// metered.
//
// [Table] talks to the kernel, [DryRun] only says what it would do, and [Writer] is the one goroutine of a daemon
// that changes either of them.
package firewall

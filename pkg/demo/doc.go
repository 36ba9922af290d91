// Package demo shows Ringwall at work without a PBX: a small PBX of its own, customers and attackers who send it real
// packets, and the real daemon beside it, whose bans stop those packets in the kernel.
package demo

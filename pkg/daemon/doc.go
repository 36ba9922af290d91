// Package daemon starts Ringwall's parts and supervises them: sessions with Asterisk, the engine, the kernel's table,
// the control socket and the metrics.
package daemon

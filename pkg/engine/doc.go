// Package engine judges sources: events in, decisions out. It is pure: no clock, no goroutine, no I/O; time comes
// with each call, so the daemon, replay, why and the tests all run the same code.
package engine

// Package pipeline is the one road from what happens to those who act on it.
//
// Frames of Asterisk, the time, and what people say take it alike: decode (each Asterisk by itself, no lock) -> lock ->
// engine -> hand the decisions to the kernel's writer -> unlock -> write. The writer gets decisions under the engine's
// lock, so the kernel sees them in the order in which they were made; it writes without that lock, on the same
// goroutine where it is idle. When the kernel has them, the state file, history, metrics, the log and notifications are
// told, in [Pipeline.tellSinks] and nowhere else: what was told is in force.
//
// [Restorer] is the way back: at the start it brings what the state file and the kernel know of before into the engine.
package pipeline

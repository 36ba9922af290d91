// Package printable makes text from the wire fit for a terminal, a log line or a table: whatever bytes an attacker
// chose, the result is one line of visible characters, read left to right, of bounded width.
package printable

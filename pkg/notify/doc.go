// Package notify tells people and programs of decisions: over webhooks, and by starting a command. Whoever decides
// never waits for it.
package notify

// Package mailbox is the queue between those who must not wait, such as the goroutine that drains a socket or the one
// that judges, and the one that handles what they hand on.
package mailbox

// Package record is what the nodes of a fleet tell each other, and what one of them makes of it.
//
// A [Record] is one node's word about one prefix. A [Book] merges records in whatever order they come, however often,
// and says who is banned by them: it keeps the latest word of each node about each prefix, and everything else follows
// from what it keeps. It is pure: time comes with each call.
package record

// Package sip reads the head of a SIP message (RFC 3261) from bytes as they came by wire: header by header, without
// needing the whole message, valid UTF-8 or a known method. It follows what pjproject's parser accepts, which is what
// Asterisk hears, and not what the grammar allows; where a message is one that no phone sends, it says so and reads on.
// Results are views into the caller's bytes: nothing is copied, and nothing is kept.
//
// Streams finds the heads of messages in the segments of TCP connections.
package sip

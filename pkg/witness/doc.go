// Package witness makes one list of attempts of what sensors see, requests to Asterisk and its answers, and of what
// Asterisk's own events tell: what an event told is not told again, and what no event told within a moment is found.
//
// What Asterisk can tell of a request and what not is known from its source. A security event is JSON before it is
// text, and a byte outside UTF-8 in one of its fields ends it (main/json.c): of such a request no event will come, and
// there is nothing to wait for. Of all others one should have come, and that it did not is worth nothing where events
// may be late or lost: a customer whose login is taken for a hidden one is locked out.
//
// It is pure: time comes with each call. It is not safe for concurrent use. Whatever arrives, its memory is bounded.
package witness

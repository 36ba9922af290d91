// Package httphead reads the head of a request to Asterisk's HTTP server, and of its answer, where somebody tries
// passwords: ARI, and the manager over HTTP. It reads the frames of WebSocket, too, in which SIP comes.
//
// It is no HTTP parser: a copy of a packet has the beginning of a request, perhaps not all of its head, and what
// Asterisk would make of it counts (main/http.c, res_ari.c, manager.c, 16 to 22). Passwords are passed over, and are
// in nothing that it returns.
//
// What Asterisk 22 answers (testdata has each):
//
//	/ari            401 with Basic, to none, wrong and unknown credentials alike; no security event
//	/arawman …      401 with Digest, likewise; no security event. stale=true: the nonce was too old, no guess
//	/rawman …       200 to a login that is refused, which the body alone says; but a security event says so, too
package httphead

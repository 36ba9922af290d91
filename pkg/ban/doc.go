// Package ban has the words that all parts of Ringwall share: what was decided and why, and who is banned, trusted or
// exempt. The engine makes them; the pipeline, the state file, the socket, the page and the notifications pass them
// on as they are. A prefix stays a netip.Prefix until somebody prints it.
//
// It is the ground floor: of Ringwall's packages it imports only the names of Asterisk's events. Who imports whom:
//
//	security <- ban <- policy <- engine <- control <- page
//	            ban <- store, metrics
//	                   store, metrics, engine <- pipeline <- daemon
package ban

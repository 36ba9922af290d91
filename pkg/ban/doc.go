// Package ban has the words that all parts of Ringwall share: what was decided and why, and who is banned or trusted. The
// engine makes them; the firewall's side, the store, the socket, the page and the notifications pass them on as they are. It
// is the ground floor: of Ringwall's packages it imports only the names of Asterisk's events.
//
//	security <- ban <- policy <- engine <- store, control <- page, notify, replay, daemon, commands
package ban

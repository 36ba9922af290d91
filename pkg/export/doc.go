// Package export writes Ringwall's own bans for other firewalls, and serves them to who has the token.
package export

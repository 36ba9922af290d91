// Package api is the unix socket by which people and programs ask Ringwall: HTTP and JSON under /v1/, the server
// of the daemon and the client of the commands.
package api

// Package hub is the servers of a fleet for who has none: one NATS server with JetStream in this program, with a
// certificate and keys of its own. Who is invited gets one line, with all that a node needs to join; each node may
// speak in its own name alone.
package hub

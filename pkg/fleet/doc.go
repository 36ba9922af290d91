// Package fleet carries what the nodes of a fleet tell each other, over NATS with JetStream.
//
// One stream keeps the last record of each key (pkg/fleet/record). What is new comes by a plain subscription: the
// server republishes what it has stored, with the number that it has in the stream, so that a gap is seen at once. What
// was missed is fetched from the last number on. The server knows nothing of those who listen: there is no consumer
// that could be lost, or be made anew ten thousand times at once when the server comes back.
//
// Local work never waits for any of this: what is said goes into a queue where the last word about a thing counts.
package fleet

// Package table holds what an engine remembers in bounded memory: sources by age, windows of time, queues, heaps,
// prefixes and counters. None of it ever copies megabytes in one call, so that no event waits for a table that grows.
// It knows of hashes, numbers and times, and of nothing that they stand for. Nothing here is safe for concurrent use.
package table

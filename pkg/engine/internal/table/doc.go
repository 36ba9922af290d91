// Package table holds what an engine remembers in bounded memory: queues, windows of time, and lists by age. None of it ever
// copies megabytes in one call, so that no event waits for a table that grows. Nothing here is safe for concurrent use.
package table

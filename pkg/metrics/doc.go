// Package metrics holds Ringwall's Prometheus metrics. No label holds an address, an account, or any other value from
// the wire.
package metrics

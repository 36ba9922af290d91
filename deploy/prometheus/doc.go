// Package prometheus has the alert rules for Ringwall and an example of a Prometheus configuration. Its tests let a
// real Prometheus scrape the daemon, and ask it every question of the rules, of the dashboard and of the documentation.
package prometheus

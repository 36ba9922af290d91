// Package store keeps what must survive a restart of the daemon, in one bbolt file: bans with their evidence,
// offenders, trust, allow entries, graces, and the history of decisions.
package store

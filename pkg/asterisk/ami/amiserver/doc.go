// Package amiserver speaks Asterisk's side of the Manager Interface: greeting, MD5 and plain login, event classes,
// Ping, refusals and the security events that Asterisk emits about its own AMI, in its words and its header order
// (main/manager.c and main/security_events.c of Asterisk 22). It is for demonstrations, tests and benchmarks: events
// come from [Server.Broadcast].
package amiserver

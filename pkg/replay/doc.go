// Package replay plays recorded security events, from AMI recordings and from logs, to an engine in the time of the
// recording, and counts what a policy would have done to attackers and to customers.
package replay

// Package event turns Asterisk's security events, from AMI frames or from lines of its security log, into typed
// events. It decodes strictly: what does not look exactly as Asterisk writes it is tampering, not an event.
package event

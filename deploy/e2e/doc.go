// Package e2e tests the program that users install against a running Asterisk: real phones and attackers in network
// namespaces, a real kernel, real packets.
package e2e

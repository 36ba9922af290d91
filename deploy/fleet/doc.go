// Package fleet tests fleets of real nodes: ringwall run and ringwall hub, each in a network namespace of its own, each
// node with the kernel's table of its own and an Asterisk that the test plays.
//
// Each test has a short form. What takes minutes, and what holds to a time, is done on request:
//
//	RINGWALL_FLEET=full go -C deploy test -v -timeout 1h ./fleet
//
// What was measured stands in the tests' logs.
package fleet

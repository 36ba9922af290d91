// Package soak tests the program on its worst days: killed, flushed, flooded, lied to, and at work for a long time.
//
// Each test has a short form, and the full length with RINGWALL_SOAK=full in the environment:
//
//	RINGWALL_SOAK=full go -C deploy test -v -timeout 2h ./soak
//
// What was measured stands in the tests' logs.
package soak

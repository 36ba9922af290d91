package soak

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/ringwall/ringwall/deploy/trial"
)

var program string

func TestMain(m *testing.M) { trial.Main(m, &program, func() error { return goleak.Find() }) }

// full says whether the tests run at their full length.
func full() bool { return os.Getenv("RINGWALL_SOAK") == "full" }

// either is short, or at full length long.
func either[T any](short, long T) T {
	if full() {
		return long
	}
	return short
}

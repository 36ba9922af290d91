package fleet

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/ringwall/ringwall/deploy/trial"
)

var program string

func TestMain(m *testing.M) {
	if file := os.Getenv(asClients); file != "" {
		if err := runClients(file); err != nil {
			panic(err)
		}
		return
	}
	trial.Main(m, &program, func() error { return goleak.Find() })
}

// isFullLength says whether the tests run at their full length.
func isFullLength() bool { return os.Getenv("RINGWALL_FLEET") == "full" }

// shortOrFull is short, or at full length full.
func shortOrFull[T any](short, full T) T {
	if isFullLength() {
		return full
	}
	return short
}

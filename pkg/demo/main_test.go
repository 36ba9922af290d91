package demo

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// asProgram, in the environment, makes the test program the demonstration itself, for so long: other users run it, and
// it runs itself again in a user namespace.
const asProgram = "RINGWALL_DEMO_TEST_FOR"

// forbid is the limit that the test program, in a user namespace of its own, sets to 0 first (namespaces(7)).
const forbid = "RINGWALL_DEMO_TEST_FORBID"

func TestMain(m *testing.M) {
	if d, err := time.ParseDuration(os.Getenv(asProgram)); err == nil {
		if file := os.Getenv(forbid); file != "" {
			if err := os.WriteFile(file, []byte("0"), 0); err != nil {
				panic(err)
			}
		}
		if err := Run(context.Background(), Options{For: d, JSON: true, Out: os.Stdout, Err: os.Stderr}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

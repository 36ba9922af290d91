package store

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// errBroken is a file that broke while it was in use: bbolt panicked, or the memory that it is mapped to faulted.
var errBroken = errors.New("the state file broke while in use")

// catchFaults calls a function that works with bbolt. bbolt maps the file into memory and panics on what it does not
// expect; a file that somebody cuts short, and a disk that cannot be read, are faults that would end the process
// (mmap(2), SIGBUS). Both come back as errBroken. fn must not start goroutines.
func catchFaults(fn func() error) (err error) {
	before := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(before)
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errBroken, r)
		}
	}()
	return fn()
}

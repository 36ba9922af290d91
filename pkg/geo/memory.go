package geo

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// memory returns n bytes that are none of Go's: on its heap, 60 MB of a file would let it grow by 120 MB between two
// collections, and be given back late.
func memory(n int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
}

func free(data []byte) {
	_ = unix.Munmap(data) // it fails only for what memory has not returned
}

// keep gives data back once nobody can use db any more. Whoever reads in it must keep db alive until done.
func keep(db *DB, data []byte) { runtime.AddCleanup(db, free, data) }

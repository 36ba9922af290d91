package geo

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// MaxBytes is the largest file that is read. While one is replaced, both are in memory; files that know only what is
// asked of them here have some 10 MB, those with cities some 150 MB.
const MaxBytes = 256 << 20

// fileVersion tells a file from the one that takes its place.
type fileVersion struct {
	dev, ino uint64
	size     int64
	changed  time.Time // content
}

func versionOf(info fs.FileInfo) fileVersion {
	s := fileVersion{size: info.Size(), changed: info.ModTime()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.dev, s.ino = sys.Dev, sys.Ino
	}
	return s
}

var errUnfinished = errors.New("is being written at this moment")

// Read reads a file into memory: one that is mapped would end the daemon when somebody truncates it. It returns an
// [*Error].
func Read(path string) (*DB, error) {
	db, _, err := readFile(path)
	return db, err
}

func readFile(path string) (*DB, fileVersion, error) {
	data, s, err := readRegular(path)
	var db *DB
	if err == nil {
		db, err = Parse(data)
	}
	if e := (*Error)(nil); errors.As(err, &e) {
		e.Path = path
	}
	return db, s, err
}

// readRegular reads a regular file, and nothing that could make the reader wait.
func readRegular(path string) ([]byte, fileVersion, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, fileVersion{}, readError(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, fileVersion{}, readError(err)
	}
	s := versionOf(info)
	switch size := info.Size(); {
	case info.IsDir():
		return nil, s, &Error{What: "is a folder", Try: "the .mmdb file in it"}
	case !info.Mode().IsRegular():
		return nil, s, &Error{What: "is no regular file", Try: "the path of a .mmdb file"}
	case size == 0:
		return nil, s, &Error{What: "is empty", Try: "geoipupdate, or download it again"}
	case size > MaxBytes:
		return nil, s, &Error{What: fmt.Sprintf("has %d MB, more than the %d MB that are read into memory", size>>20,
			MaxBytes>>20),
			Try: "GeoLite2-Country.mmdb or GeoLite2-ASN.mmdb, which are small"}
	}
	data := make([]byte, info.Size())
	if _, err := io.ReadFull(f, data); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			err = errUnfinished // truncated meanwhile
		}
		return nil, s, readError(err)
	}
	if info, err = f.Stat(); err != nil || versionOf(info) != s {
		return nil, s, readError(errUnfinished)
	}
	return data, s, nil
}

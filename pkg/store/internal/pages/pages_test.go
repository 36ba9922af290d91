package pages_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/ringwall/ringwall/pkg/store/internal/pages"
)

// treeFile is a bbolt file whose one bucket has a branch page, and the number of that page.
func treeFile(t *testing.T) (file []byte, branch, pageSize int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.db")
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	pageSize = db.Info().PageSize
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("bucket"))
		for i := 0; err == nil && i < 1000; i++ {
			err = b.Put(fmt.Appendf(nil, "key %04d", i), make([]byte, 50))
		}
		return err
	})
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if file, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	for n := 2; n < len(file)/pageSize; n++ {
		if binary.NativeEndian.Uint16(file[n*pageSize+8:]) == 0x01 {
			branch = n
		}
	}
	if branch == 0 {
		t.Fatal("the file has no branch page")
	}
	return file, branch, pageSize
}

// Each of these ends the process, or never ends, where bbolt itself follows or checks the file.
func TestWhatBboltMustNotFollowIsFound(t *testing.T) {
	t.Parallel()
	whole, branch, pageSize := treeFile(t)
	if u, err := pages.Check(bytes.NewReader(whole), int64(len(whole))); err != nil || u.PageSize != pageSize ||
		u.Pages < 3 {
		t.Fatalf("a whole file: %+v, %v", u, err)
	}
	// The first element of the branch page, behind the page's header: position and size of its key, and its child.
	element := branch*pageSize + 16
	for name, ruin := range map[string]func(b []byte){
		"a page that points to itself": func(b []byte) { binary.NativeEndian.PutUint64(b[element+8:], uint64(branch)) },
		"a page beyond the end":        func(b []byte) { binary.NativeEndian.PutUint64(b[element+8:], 1<<40) },
		"a key beyond the mapping":     func(b []byte) { binary.NativeEndian.PutUint32(b[element:], 1<<31) },
		"more elements than fit": func(b []byte) {
			binary.NativeEndian.PutUint16(b[branch*pageSize+10:],
				0xFFFF)
		},
	} {
		b := bytes.Clone(whole)
		ruin(b)
		if _, err := pages.Check(bytes.NewReader(b), int64(len(b))); !errors.Is(err, pages.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

package fetch

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ringwall/ringwall/pkg/lists"
	"github.com/ringwall/ringwall/pkg/store"
)

// Copy is the last good copy of a list. It is never changed.
type Copy struct {
	Entries []lists.Entry
	LeftOut lists.LeftOut // what no list may name
	header
}

// header is the first line of a copy's file.
type header struct {
	Format       int       `json:"format"`
	Identity     string    `json:"identity"`
	Count        int       `json:"count"`
	Sum          string    `json:"sha256"`  // of the rest of the file
	Fetched      time.Time `json:"fetched"` // the last time that the server had this or nothing new
	Changed      time.Time `json:"changed"`
	ETag         string    `json:"etag,omitempty"`
	LastModified string    `json:"last_modified,omitempty"`
	// Cursor is where APIBAN goes on. It only goes forward, so it is worth nothing without the addresses.
	Cursor string `json:"cursor,omitempty"`
	Credit string `json:"credit,omitempty"`
	Bad    int    `json:"bad,omitempty"` // lines that name nothing
	Sample string `json:"sample,omitempty"`
}

const copyFormat = 1

func copyPath(dir, name string) string { return filepath.Join(dir, name+".list") }

// save writes a copy so that a power cut leaves either it or the one before.
func (c *Copy) save(dir, name string) error {
	var body bytes.Buffer
	for _, e := range c.Entries {
		body.WriteString(e.Prefix().String())
		if ends := e.Ends(); !ends.IsZero() {
			body.WriteByte(' ')
			body.WriteString(strconv.FormatInt(ends.Unix(), 10))
		}
		body.WriteByte('\n')
	}
	sum := sha256.Sum256(body.Bytes())
	h := c.header
	h.Format, h.Count, h.Sum = copyFormat, len(c.Entries), hex.EncodeToString(sum[:])
	head, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	return store.WriteFile(copyPath(dir, name), slices.Concat(head, []byte{'\n'}, body.Bytes()), false)
}

// load reads the copy of a list; nil where there is none, or one of another address.
func load(dir string, s *Source) (*Copy, error) {
	f, err := os.Open(copyPath(dir, s.Name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	r := bufio.NewReaderSize(f, 64<<10)
	head, err := r.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("the copy of list %s is damaged: %w", s.Name, err)
	}
	c := &Copy{}
	if err := json.Unmarshal(head, &c.header); err != nil || c.Format != copyFormat {
		return nil, fmt.Errorf("the copy of list %s is damaged, or of another version", s.Name)
	}
	if c.Identity != s.identity() {
		return nil, nil
	}
	sum := sha256.New()
	in := bufio.NewScanner(io.TeeReader(r, sum))
	c.Entries = make([]lists.Entry, 0, min(max(0, c.Count), s.MaxEntries))
	for in.Scan() {
		text, end, timed := strings.Cut(in.Text(), " ")
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("the copy of list %s is damaged: %w", s.Name, err)
		}
		var ends time.Time
		if timed {
			n, err := strconv.ParseInt(end, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("the copy of list %s is damaged: %w", s.Name, err)
			}
			ends = time.Unix(n, 0)
		}
		c.Entries = append(c.Entries, lists.NewEntry(p, ends))
	}
	if err := in.Err(); err != nil {
		return nil, err
	}
	if hex.EncodeToString(sum.Sum(nil)) != c.Sum || len(c.Entries) != c.Count {
		return nil, fmt.Errorf("the copy of list %s is damaged: not all of it is there", s.Name)
	}
	// The rules may be stricter than they were.
	c.Entries, c.LeftOut = lists.Clean(c.Entries, s.MaxPrefix)
	c.Entries = slices.Clip(c.Entries)
	return c, nil
}

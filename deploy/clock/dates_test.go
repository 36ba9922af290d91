package clock

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// enough is for how long what is in this repository must go on being valid: longer than anybody runs its tests.
const enough = 50 * 365 * 24 * time.Hour

// openssl -days, in scripts and in what users are told to type.
var days = regexp.MustCompile(`openssl (?s:.{0,300}?)-days[ =]+(\d+)`)

// whatExpires says what of a file will be out of date.
func whatExpires(name string, content []byte, now time.Time) (out []string) {
	certificate := func(der []byte) error {
		c, err := x509.ParseCertificate(der)
		if err == nil && c.NotAfter.Before(now.Add(enough)) {
			out = append(out, fmt.Sprintf("%s: the certificate of %q expires on %s", name, c.Subject,
				c.NotAfter.Format(time.DateOnly)))
		}
		return err
	}
	for rest := content; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if strings.HasSuffix(block.Type, "CERTIFICATE") {
			if err := certificate(block.Bytes); err != nil {
				out = append(out, fmt.Sprintf("%s: a certificate cannot be read: %v", name, err))
			}
		}
	}
	switch filepath.Ext(name) {
	case ".der", ".crt", ".cer":
		if !bytes.Contains(content, []byte("-----BEGIN")) {
			if err := certificate(content); err != nil {
				out = append(out, fmt.Sprintf("%s: a certificate cannot be read: %v", name, err))
			}
		}
	}
	for _, m := range days.FindAllSubmatch(content, -1) {
		if n, err := strconv.Atoi(string(m[1])); err != nil || time.Duration(n)*24*time.Hour < enough {
			out = append(out, fmt.Sprintf("%s: openssl makes a certificate for %s days", name, m[1]))
		}
	}
	return out
}

// Nothing that is signed for a time may be kept here, or be made for less than decades: on some day the tests would be
// red. What tests sign while they run, they sign relative to that moment.
func TestNothingKeptHereExpires(t *testing.T) {
	files := 0
	top := filepath.Join("..", "..")
	if err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Name() == ".git":
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		case !d.Type().IsRegular():
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		if filepath.Base(path) == "dates_test.go" {
			return nil
		}
		for _, text := range whatExpires(path, b, time.Now()) {
			t.Error(text)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if files < 100 {
		t.Errorf("only %d files were looked at", files)
	}
}

func TestWhatExpiresIsFound(t *testing.T) {
	now := time.Now()
	made := func(valid time.Duration) []byte {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now, NotAfter: now.Add(valid)}
		der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	inPEM := func(der []byte) []byte {
		return append([]byte("text\n"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	short, long := made(10*365*24*time.Hour), made(100*365*24*time.Hour)
	for _, c := range []struct {
		name    string
		content []byte
		found   int
	}{
		{"a.pem", inPEM(short), 1},
		{"a.go", append(inPEM(long), inPEM(short)...), 1},
		{"a.pem", inPEM(long), 0},
		{"a.crt", short, 1},
		{"a.crt", long, 0},
		{"a.crt", inPEM(long), 0},
		{"a.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), 1},
		{"a.sh", []byte("openssl req -x509 \\\n -days 3650 -subj /CN=x"), 1},
		{"a.sh", []byte("openssl req -x509 -days 36500"), 0},
		{"a.md", []byte("within 30 -days 3"), 0},
	} {
		if got := whatExpires(c.name, c.content, now); len(got) != c.found {
			t.Errorf("%s, %.40q: found %q, want %d", c.name, c.content, got, c.found)
		}
	}
}

package hub

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/nats-io/nkeys"

	"github.com/ringwall/ringwall/pkg/fleet/record"
)

// Invitation is what one node needs to join a fleet. It holds the node's secret.
type Invitation struct {
	Server      string `json:"server"` // tls://HOST:PORT
	Fleet       string `json:"fleet"`
	Node        string `json:"node"`
	Seed        string `json:"seed"`        // of the node's nkey
	Certificate []byte `json:"certificate"` // of the server, in DER: that one and no other
}

const (
	linePrefix = "ringwall1:"
	maxLine    = 8 << 10 // bytes
)

// ErrInvitation is a line that is no invitation.
var ErrInvitation = errors.New("not a line of ringwall hub invite")

// String is the invitation as one line.
func (i Invitation) String() string {
	data, err := json.Marshal(i)
	if err != nil { // of texts and bytes there is none
		panic(err)
	}
	return linePrefix + base64.RawURLEncoding.EncodeToString(data)
}

// ParseInvitation is the inverse of String.
func ParseInvitation(line string) (i Invitation, err error) {
	text, ok := strings.CutPrefix(strings.TrimSpace(line), linePrefix)
	if !ok || len(text) > maxLine {
		return Invitation{}, ErrInvitation
	}
	data, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return Invitation{}, fmt.Errorf("%w: it is cut off, or changed", ErrInvitation)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&i); err != nil {
		return Invitation{}, fmt.Errorf("%w: it is cut off, or changed", ErrInvitation)
	}
	u, err := url.Parse(i.Server)
	switch {
	case err != nil || u.Scheme != "tls" || u.Hostname() == "" || u.Port() == "" || u.Path != "" || u.User != nil:
		return Invitation{}, fmt.Errorf("%w: its server is none", ErrInvitation)
	case !record.IsName(i.Fleet) || !record.IsName(i.Node):
		return Invitation{}, fmt.Errorf("%w: its names are none", ErrInvitation)
	}
	if key, err := nkeys.FromSeed([]byte(i.Seed)); err != nil {
		return Invitation{}, fmt.Errorf("%w: its key is none", ErrInvitation)
	} else if public, err := key.PublicKey(); err != nil || !nkeys.IsValidPublicUserKey(public) {
		return Invitation{}, fmt.Errorf("%w: its key is not a node's", ErrInvitation)
	}
	if _, err := x509.ParseCertificate(i.Certificate); err != nil {
		return Invitation{}, fmt.Errorf("%w: its certificate is none", ErrInvitation)
	}
	return i, nil
}

// CertificatePEM is the certificate as a file holds it.
func (i Invitation) CertificatePEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Certificate})
}

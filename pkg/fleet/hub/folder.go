package hub

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/nats-io/nkeys"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/fleet/record"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/store"
)

// ServerName is in the certificate of every hub: who it is says the certificate itself, which the invitation holds.
const ServerName = "ringwall-hub"

const certificateYears = 30

// Folder is where a hub keeps its key and certificate, and who is invited.
type Folder struct{ Path string }

// members is the file of who is invited.
type members struct {
	Fleet string            `json:"fleet"`
	Nodes map[string]string `json:"nodes"` // public keys, by name

	Forget []string `json:"forget,omitempty"` // nodes whose words are to be void everywhere, until that is done
}

func (f Folder) membersFile() string     { return filepath.Join(f.Path, "nodes.json") }
func (f Folder) certificateFile() string { return filepath.Join(f.Path, "certificate.pem") }
func (f Folder) keyFile() string         { return filepath.Join(f.Path, "key.pem") }

// ErrNoHub is a folder in which there is no hub yet.
var ErrNoHub = errors.New("there is no hub")

// Prepare makes what is missing in the folder: a key, a certificate, and a list of who is invited to a fleet, which is
// empty. It reports whether the hub is new. The name of a fleet never changes.
func (f Folder) Prepare(fleet string) (isNew bool, err error) {
	if !record.IsName(fleet) {
		return false, hint.Errorf("1 to 32 letters, digits, - or _", "%q is not a name for a fleet", fleet)
	}
	if err := os.MkdirAll(f.Path, 0o700); err != nil {
		return false, err
	}
	unlock, err := f.lock()
	if err != nil {
		return false, err
	}
	defer unlock()
	m, err := f.readMembers()
	switch {
	case errors.Is(err, ErrNoHub):
	case err != nil:
		return false, err
	case m.Fleet != fleet:
		return false, hint.Errorf("--name "+m.Fleet+", or another --folder", "the hub in %s is of the fleet %s", f.Path,
			m.Fleet)
	default:
		return false, nil
	}
	key, certificate, err := makeCertificate(time.Now())
	if err != nil {
		return false, err
	}
	if err := store.WriteFile(f.keyFile(), key, false); err != nil {
		return false, err
	}
	if err := store.WriteFile(f.certificateFile(), certificate, false); err != nil {
		return false, err
	}
	// The last one: with it, all is there.
	return true, f.writeMembers(members{Fleet: fleet, Nodes: map[string]string{}})
}

func makeCertificate(now time.Time) (key, certificate []byte, err error) {
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	number, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{SerialNumber: number, Subject: pkix.Name{CommonName: ServerName},
		DNSNames: []string{ServerName}, NotBefore: now.Add(-24 * time.Hour),
		NotAfter: now.AddDate(certificateYears, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &secret.PublicKey, secret)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(secret)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// lock keeps others from changing the folder.
func (f Folder) lock() (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(f.Path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hint.Errorf("ringwall hub, which makes one", "%w in %s", ErrNoHub, f.Path)
	}
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		_ = file.Close()
		return nil, err
	}
	return func() { _ = file.Close() }, nil
}

func (f Folder) readMembers() (m members, err error) {
	data, err := os.ReadFile(f.membersFile())
	if errors.Is(err, fs.ErrNotExist) {
		return m, hint.Errorf("ringwall hub, which makes one", "%w in %s", ErrNoHub, f.Path)
	}
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("%s is damaged: %w", f.membersFile(), err)
	}
	if !record.IsName(m.Fleet) {
		return m, fmt.Errorf("%s is damaged: it names no fleet", f.membersFile())
	}
	return m, nil
}

func (f Folder) writeMembers(m members) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	return store.WriteFile(f.membersFile(), append(data, '\n'), false)
}

// Invite lets a node in, which reaches the hub at HOST:PORT. Who had that name before is out.
func (f Folder) Invite(node, address string) (i Invitation, err error) {
	if !record.IsName(node) {
		return i, hint.Errorf("1 to 32 letters, digits, - or _", "%q is not a name for a node", node)
	}
	if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
		return i, hint.Errorf("HOST:PORT, as the node reaches it", "%q is not the address of a hub", address)
	}
	unlock, err := f.lock()
	if err != nil {
		return i, err
	}
	defer unlock()
	m, err := f.readMembers()
	if err != nil {
		return i, err
	}
	data, err := os.ReadFile(f.certificateFile())
	if err != nil {
		return i, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return i, fmt.Errorf("%s holds no certificate", f.certificateFile())
	}
	key, err := nkeys.CreateUser()
	if err != nil {
		return i, err
	}
	public, err := key.PublicKey()
	if err != nil {
		return i, err
	}
	seed, err := key.Seed()
	if err != nil {
		return i, err
	}
	m.Nodes[node] = public
	return Invitation{Server: "tls://" + address, Fleet: m.Fleet, Node: node, Seed: string(seed),
		Certificate: block.Bytes}, f.writeMembers(m)
}

// Revoke takes back an invitation. The node is cut off within a second, where the hub runs.
func (f Folder) Revoke(node string) error {
	return f.change(func(m *members) error {
		if _, ok := m.Nodes[node]; !ok {
			return fmt.Errorf("no node %q is invited", node)
		}
		delete(m.Nodes, node)
		return nil
	})
}

// Forget has a hub that runs, or will, void everywhere what a node has said so far. It reports whether the node is
// still invited: what it says from then on is heard.
func (f Folder) Forget(node string) (isInvited bool, err error) {
	if !record.IsName(node) {
		return false, hint.Errorf("1 to 32 letters, digits, - or _", "%q is not a name for a node", node)
	}
	err = f.change(func(m *members) error {
		_, isInvited = m.Nodes[node]
		if !slices.Contains(m.Forget, node) {
			m.Forget = append(m.Forget, node)
		}
		return nil
	})
	return isInvited, err
}

// IsForgotten reports whether a hub has done what Forget asked for.
func (f Folder) IsForgotten(node string) (bool, error) {
	m, err := f.readMembers()
	return !slices.Contains(m.Forget, node), err
}

// forgotten notes that Forget is done of a node.
func (f Folder) forgotten(node string) error {
	return f.change(func(m *members) error {
		m.Forget = slices.DeleteFunc(m.Forget, func(n string) bool { return n == node })
		return nil
	})
}

// change changes who is invited, with nobody else at it.
func (f Folder) change(change func(*members) error) error {
	unlock, err := f.lock()
	if err != nil {
		return err
	}
	defer unlock()
	m, err := f.readMembers()
	if err != nil {
		return err
	}
	if err := change(&m); err != nil {
		return err
	}
	return f.writeMembers(m)
}

func (f Folder) certificate() (tls.Certificate, error) {
	return tls.LoadX509KeyPair(f.certificateFile(), f.keyFile())
}

package config

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ringwall/ringwall/pkg/hint"
)

// credentialName is the systemd credential that holds the secret: LoadCredential=ami-secret:PATH (systemd.exec(5)).
const credentialName = "ami-secret"

const (
	maxSecretFile = 4 << 10 // bytes
	maxCAFile     = 1 << 20 // bytes
	secretSources = `secret: "…", secret: "${VARIABLE}", secret_file: PATH, ` +
		"or LoadCredential=ami-secret:PATH in the systemd unit"
)

// resolveSecret finds the secret of one Asterisk where its configuration says that it is.
func (ps *parser) resolveSecret(a *Asterisk, path string) {
	key, fileKey := path+".secret", path+".secret_file"
	if ps.failed[key] || ps.failed[fileKey] {
		return
	}
	text := a.Secret.value
	name, variable := strings.CutPrefix(text, "${")
	name, closed := strings.CutSuffix(name, "}")
	variable = variable && closed
	switch {
	case text != "" && a.SecretFile != "":
		ps.fail(fileKey, "secret and secret_file are both given", detail{hint: "remove one of them"})
	case variable && !variableName(name):
		ps.fail(key, "not the name of an environment variable", detail{allowed: "${NAME} of letters, digits and _"})
	case ps.env.WithoutSecrets && (variable || text == ""):
		a.Secret = Secret{}
	case variable:
		a.Secret = Secret{} // the name of the variable is none
		value, ok := ps.env.lookupVariable(name)
		switch {
		case !ok:
			ps.fail(key, "the environment variable "+name+" is not set", detail{outside: true,
				hint: "Environment= or EnvironmentFile= in the systemd unit, or secret_file"})
			return
		case value == "":
			ps.fail(key, "the environment variable "+name+" is empty", detail{outside: true})
			return
		}
		a.Secret = ps.sendableSecret(key, value)
	case text != "":
		if text == hidden {
			ps.warn(key, hidden+" is what check --print shows in place of a secret", detail{hint: "the secret itself"})
		}
		a.Secret = ps.sendableSecret(key, text)
		if n := ps.valueNodes[key]; n != nil && len(n.LineComment) > 1 && n.LineComment[1] != ' ' {
			ps.warn(key, "what follows # is a comment and no part of the secret",
				detail{hint: "the secret in double quotes"})
		}
	case a.SecretFile != "":
		a.Secret = ps.secretFile(fileKey, a.SecretFile, false)
	default:
		folder, _ := ps.env.lookupVariable("CREDENTIALS_DIRECTORY")
		if folder != "" {
			r, err := ps.env.openFile(filepath.Join(folder, credentialName))
			if err == nil {
				_ = r.Close()
			}
			if !errors.Is(err, fs.ErrNotExist) {
				a.Secret = ps.secretFile(key, filepath.Join(folder, credentialName), true)
				return
			}
		}
		d := detail{allowed: secretSources, outside: folder == ""}
		if n := ps.valueNodes[key]; n != nil && n.Value == "" && n.LineComment != "" {
			d.hint = "double quotes around a secret that begins with #"
		}
		ps.fail(key, "missing", d)
	}
}

// forgiveElsewhere turns what is wrong outside of this file into warnings, if nothing else is wrong. A target of
// notify that it is about is left out.
func (ps *parser) forgiveElsewhere(c *Config) {
	if slices.ContainsFunc(ps.mistakes, func(e *Error) bool { return !e.outside }) {
		return
	}
	bad := make(map[int]bool)
	for _, e := range ps.mistakes {
		ps.warnings = append(ps.warnings, Warning{File: e.File, Line: e.Line, Column: e.Column, Key: e.Key,
			What: e.What, Value: e.Value, Try: e.Try})
		if rest, ok := strings.CutPrefix(e.Key, "notify["); ok {
			number, _, _ := strings.Cut(rest, "]")
			if i, err := strconv.Atoi(number); err == nil {
				bad[i] = true
			}
		}
	}
	ps.mistakes = nil
	kept := c.Notify[:0]
	for i, n := range c.Notify {
		if !bad[i] {
			kept = append(kept, n)
		}
	}
	c.Notify = kept
	sortWarnings(ps.warnings)
}

// Elsewhere says whether the secret or a certificate of an Asterisk is in a file of its own, or could not be had:
// what may be different, or right, by the next login.
func (a *Asterisk) Elsewhere() bool {
	return a.SecretFile != "" || a.TLS.CAFile != "" || a.Secret.IsZero()
}

// Reload returns an Asterisk with its secret as it is now. It fails where there is none.
func (a Asterisk) Reload(env Environment) (Asterisk, error) {
	ps := &parser{env: env, failed: make(map[string]bool)}
	if a.SecretFile != "" {
		a.Secret = Secret{}
	}
	if a.Secret.IsZero() {
		ps.resolveSecret(&a, "asterisk")
	}
	if len(ps.mistakes) == 0 {
		return a, nil
	}
	e := ps.mistakes[0]
	e.Key = lastKey(e.Key)
	return a, e
}

// sendableSecret refuses what cannot be sent in an AMI header, where a line break ends the value.
func (ps *parser) sendableSecret(key, value string) Secret {
	if i := strings.IndexFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
		hint := "one line"
		if strings.HasPrefix(key, "asterisk") {
			hint += ", as in manager.conf"
		}
		ps.fail(key, "the secret holds a line break or a control character", detail{hint: hint})
		return Secret{}
	}
	return Secret{value}
}

// secretFile reads a file that holds a secret and perhaps a line break behind it. systemd guards a credential by its
// folder, so its own mode does not count.
func (ps *parser) secretFile(key, name string, credential bool) Secret {
	text, ok := ps.secretText(key, name, credential)
	if !ok {
		return Secret{}
	}
	return ps.sendableSecret(key, text)
}

// secretText reads what a file holds that nobody else may read.
func (ps *parser) secretText(key, name string, credential bool) (text string, ok bool) {
	data, mode, err := ps.readFile(name, maxSecretFile)
	if err != nil {
		ps.fail(key, "the secret cannot be read from "+plainText(name)+": "+reasonText(err),
			detail{cause: err, outside: true,
				hint: cmp.Or(hint.Of(err), "its name, and the rights of the user that the daemon runs as")})
		return "", false
	}
	if mode&0o004 != 0 && !credential {
		ps.fail(key, fmt.Sprintf("everybody can read %s (mode %04o)", plainText(name), mode.Perm()),
			detail{outside: true,
				hint: "chmod 0640 " + plainText(name)})
		return "", false
	}
	text = strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if text == "" {
		ps.fail(key, plainText(name)+" is empty", detail{outside: true, hint: "the secret in it, on one line"})
		return "", false
	}
	return text, true
}

var errNotRegular = errors.New("not a regular file")

// readFile returns a regular file of at most limit bytes.
func (ps *parser) readFile(name string, limit int64) ([]byte, fs.FileMode, error) {
	r, err := ps.env.openFile(name)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = r.Close() }()
	info, err := r.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, errNotRegular
	}
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("larger than %d bytes", limit)
	}
	return data, info.Mode(), err
}

// reasonText is an error without the file name that the message names already.
func reasonText(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

func variableName(name string) bool {
	if name == "" || len(name) > 100 || name[0] >= '0' && name[0] <= '9' {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}

// CertPool reads the certificates of a ca_file, for whoever connects.
func CertPool(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", file)
	}
	return pool, nil
}

// caFile checks that TLS will find certificates in it.
func (ps *parser) caFile(key, name string) {
	data, _, err := ps.readFile(name, maxCAFile)
	switch {
	case err != nil:
		ps.fail(key, "cannot be read: "+reasonText(err), detail{value: ps.shownValue(key), cause: err, outside: true,
			hint: cmp.Or(hint.Of(err), "the certificate that signed Asterisk's, as PEM")})
	case !x509.NewCertPool().AppendCertsFromPEM(data):
		ps.fail(key, "holds no certificate", detail{value: ps.shownValue(key), outside: true,
			allowed: "PEM: -----BEGIN CERTIFICATE-----"})
	}
}

package policy

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
)

// credentialName is the systemd credential that holds the secret: LoadCredential=ami-secret:PATH (systemd.exec(5)).
const credentialName = "ami-secret"

const (
	maxSecretFile = 4 << 10 // bytes
	maxCAFile     = 1 << 20 // bytes
	secretSources = `secret: "…", secret: "${VARIABLE}", secret_file: PATH, or LoadCredential=ami-secret:PATH in the systemd unit`
)

// secret finds the secret of one Asterisk where its configuration says that it is.
func (f *file) secret(a *Asterisk, path string) {
	key, fileKey := path+".secret", path+".secret_file"
	if f.bad[key] || f.bad[fileKey] {
		return
	}
	text := a.Secret.value
	name, variable := strings.CutPrefix(text, "${")
	name, closed := strings.CutSuffix(name, "}")
	variable = variable && closed
	switch {
	case text != "" && a.SecretFile != "":
		f.fail(fileKey, "secret and secret_file are both given", detail{hint: "remove one of them"})
	case variable && !variableName(name):
		f.fail(key, "not the name of an environment variable", detail{allowed: "${NAME} of letters, digits and _"})
	case f.env.WithoutSecrets && (variable || text == ""):
		a.Secret = Secret{}
	case variable:
		value, ok := f.env.lookup(name)
		switch {
		case !ok:
			f.fail(key, "the environment variable "+name+" is not set", detail{
				hint: "Environment= or EnvironmentFile= in the systemd unit, or secret_file"})
			return
		case value == "":
			f.fail(key, "the environment variable "+name+" is empty", detail{})
			return
		}
		a.Secret = f.usable(key, value)
	case text != "":
		if text == hidden {
			f.warn(key, hidden+" is what check --print shows in place of a secret", detail{hint: "the secret itself"})
		}
		a.Secret = f.usable(key, text)
		if n := f.nodes[key]; n != nil && len(n.LineComment) > 1 && n.LineComment[1] != ' ' {
			f.warn(key, "what follows # is a comment and no part of the secret", detail{hint: "the secret in double quotes"})
		}
	case a.SecretFile != "":
		a.Secret = f.secretFile(fileKey, a.SecretFile, false)
	default:
		folder, _ := f.env.lookup("CREDENTIALS_DIRECTORY")
		if folder != "" {
			r, err := f.env.open(filepath.Join(folder, credentialName))
			if err == nil {
				_ = r.Close()
			}
			if !errors.Is(err, fs.ErrNotExist) {
				a.Secret = f.secretFile(key, filepath.Join(folder, credentialName), true)
				return
			}
		}
		d := detail{allowed: secretSources}
		if n := f.nodes[key]; n != nil && n.Value == "" && n.LineComment != "" {
			d.hint = "double quotes around a secret that begins with #"
		}
		f.fail(key, "missing", d)
	}
}

// usable refuses what cannot be sent in an AMI header, where a line break ends the value.
func (f *file) usable(key, value string) Secret {
	if i := strings.IndexFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
		hint := "one line"
		if strings.HasPrefix(key, "asterisk") {
			hint += ", as in manager.conf"
		}
		f.fail(key, "the secret holds a line break or a control character", detail{hint: hint})
		return Secret{}
	}
	return Secret{value}
}

// secretFile reads a file that holds a secret and perhaps a line break behind it. systemd guards a credential by its
// folder, so its own mode does not count.
func (f *file) secretFile(key, name string, credential bool) Secret {
	data, mode, err := f.read(name, maxSecretFile)
	if err != nil {
		f.fail(key, "the secret cannot be read from "+plainText(name)+": "+reason(err), detail{cause: err,
			hint: "its name, and the rights of the user that the daemon runs as"})
		return Secret{}
	}
	if mode&0o004 != 0 && !credential {
		f.fail(key, fmt.Sprintf("everybody can read %s (mode %04o)", plainText(name), mode.Perm()), detail{
			hint: "chmod 0640 " + plainText(name)})
		return Secret{}
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if text == "" {
		f.fail(key, plainText(name)+" is empty", detail{hint: "the secret in it, on one line"})
		return Secret{}
	}
	return f.usable(key, text)
}

var errNotRegular = errors.New("not a regular file")

// read returns a regular file of at most limit bytes.
func (f *file) read(name string, limit int64) ([]byte, fs.FileMode, error) {
	r, err := f.env.open(name)
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

// reason is an error without the file name that the message names already.
func reason(err error) string {
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

// caFile checks that TLS will find certificates in it.
func (f *file) caFile(key, name string) {
	data, _, err := f.read(name, maxCAFile)
	switch {
	case err != nil:
		f.fail(key, "cannot be read: "+reason(err), detail{value: f.shown(key), cause: err,
			hint: "the certificate that signed Asterisk's, as PEM"})
	case !x509.NewCertPool().AppendCertsFromPEM(data):
		f.fail(key, "holds no certificate", detail{value: f.shown(key), allowed: "PEM: -----BEGIN CERTIFICATE-----"})
	}
}

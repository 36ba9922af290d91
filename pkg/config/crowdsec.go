package config

import (
	"fmt"
	"net/url"

	"go.yaml.in/yaml/v3"
)

// CrowdSec is a LAPI that is told of our bans.
type CrowdSec struct {
	URL             string `yaml:"url"`              // that of CredentialsFile, where it is empty
	CredentialsFile string `yaml:"credentials_file"` // "" is no LAPI
	CAFile          string `yaml:"ca_file"`
	ProvenOnly      bool   `yaml:"proven_only"`
	Login           string `yaml:"-"` // of CredentialsFile
	Password        Secret `yaml:"-"` // of CredentialsFile
}

// checkCrowdSec reads who Ringwall is at a LAPI, from the file that cscli machines add writes.
func (ps *parser) checkCrowdSec(c *CrowdSec) {
	const address, file = "crowdsec.url", "crowdsec.credentials_file"
	if c.CredentialsFile == "" {
		if c.URL != "" && !ps.failed[file] {
			ps.fail(file, "missing", detail{allowed: "the file that cscli machines add writes, its whole path"})
		}
		return
	}
	if ps.failed[file] || ps.env.WithoutSecrets {
		return
	}
	text, ok := ps.secretText(file, c.CredentialsFile, false)
	if !ok {
		return
	}
	var credentials struct{ URL, Login, Password string }
	// The error would show lines of the file.
	if yaml.Unmarshal([]byte(text), &credentials) != nil || credentials.Login == "" || credentials.Password == "" {
		ps.fail(file, plainText(c.CredentialsFile)+" has no login and password", detail{outside: true,
			hint: "on the machine of the LAPI: cscli machines add NAME --auto --file FILE"})
		return
	}
	c.Login, c.Password = credentials.Login, Secret{credentials.Password}
	if c.URL == "" {
		c.URL = credentials.URL
	}
	u, err := url.Parse(c.URL)
	switch {
	case ps.failed[address]:
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil ||
		u.RawQuery != "":
		ps.fail(address, "not a LAPI's address", detail{value: fmt.Sprintf("%q", plainText(c.URL)),
			allowed: "https://HOST:PORT, or http:// to this machine", hint: "http://127.0.0.1:8080"})
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		ps.fail(address, "anybody on the way could read the password, and have attackers allowed", detail{
			value: fmt.Sprintf("%q", plainText(c.URL)), allowed: "https://HOST:PORT, or http:// to this machine"})
	}
}

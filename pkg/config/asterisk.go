package config

import (
	"cmp"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxAddress is the length of the longest host name with its port, in bytes. A name may be as long, for it is the
// address where none is given.
const maxAddress = 260

// isList says whether the file gives a list at a path, an empty one as well.
func (ps *parser) isList(path string) bool {
	n := ps.valueNodes[path]
	return n != nil && n.Kind == yaml.SequenceNode
}

// checkAsterisks checks the list of Asterisks, and completes what follows from the rest: ports, names, secrets. A node
// of a fleet may say that it has none, and bans whom the others saw.
func (ps *parser) checkAsterisks(list []Asterisk, mode fs.FileMode, ofFleet bool) {
	if len(list) == 0 && !ps.failed["asterisk"] && (!ofFleet || !ps.isList("asterisk")) {
		ps.fail("asterisk", "missing", detail{allowed: "a list with an address, a username and a secret for each " +
			"Asterisk",
			hint: "examples/minimal.yaml"})
	}
	names, addresses := map[string]string{}, map[string]string{}
	literal := ""
	for i := range list {
		a, path := &list[i], fmt.Sprintf("asterisk[%d]", i)
		if ps.failed[path] {
			continue
		}
		ps.checkAddress(a, path)
		if key := path + ".username"; a.Username == "" && !ps.failed[key] {
			ps.fail(key, "missing", detail{allowed: "the user's section name in manager.conf"})
		}
		ps.checkTLS(a, path)
		if n := ps.valueNodes[path+".secret"]; n != nil && n.Value != "" && !strings.HasPrefix(n.Value, "${") {
			literal = cmp.Or(literal, path+".secret")
		}
		ps.secretPath(a, path)
		ps.resolveSecret(a, path)
		if a.Name == "" {
			a.Name = a.Address
		}
		if !isPrintable(a.Name, maxAddress) && ps.isGiven(path+".name") {
			ps.fail(path+".name", "not usable as a name",
				detail{value: ps.shownValue(path + ".name"), allowed: "1 to 260 printable bytes"})
		}
		if ps.failed[path+".name"] || ps.failed[path+".address"] || a.Name == "" {
			continue
		}
		if first, taken := addresses[a.Address]; taken {
			ps.fail(path+".address", "the same as "+first+".address; its events would count twice",
				detail{value: ps.shownValue(path + ".address"), hint: "remove one of the two entries"})
		} else if first, taken := names[a.Name]; taken {
			ps.fail(path+".name", "the same as the name of "+first,
				detail{value: ps.quoteUnlessSecret(a.Name), hint: "another name"})
		}
		names[a.Name], addresses[a.Address] = path, path
	}
	if literal != "" && mode&0o004 != 0 {
		ps.warn(literal, fmt.Sprintf("everybody on this machine can read the secret (mode %04o)", mode.Perm()),
			detail{hint: "chmod 0640 on the file, or secret_file"})
	}
}

func (ps *parser) checkAddress(a *Asterisk, path string) {
	key := path + ".address"
	if ps.failed[key] {
		return
	}
	if a.Address == "" {
		ps.fail(key, "missing", detail{hint: "127.0.0.1:5038"})
		return
	}
	port := "5038" // manager.conf.sample of Asterisk: port, and tlsbindaddr's default
	if a.TLS.Enabled {
		port = "5039"
	}
	host, address, ok := hostPort(a.Address, port)
	if ip, err := netip.ParseAddr(host); !ok || !isPrintable(address, maxAddress) || err == nil && ip.IsUnspecified() {
		ps.fail(key, "not an address to connect to", detail{value: ps.shownValue(key),
			allowed: "HOST:PORT, [IPv6]:PORT, or HOST for port " + port, hint: "127.0.0.1:" + port})
		return
	}
	a.Address = address
	if a.Auth == AuthPlain && !a.TLS.Enabled && !isLoopback(host) {
		ps.warn(path+".auth", "the secret crosses the network in clear",
			detail{hint: "auth: md5, or tls: {enabled: true}"})
	}
}

// checkUsername checks the name of a manager user, where there is one.
func (ps *parser) checkUsername(key, name string) {
	switch {
	case name == "":
	case strings.HasPrefix(name, "${"):
		ps.fail(key, "environment variables are only read in secret",
			detail{value: ps.shownValue(key), hint: "the name itself"})
	case !isPrintable(name, 79): // main/manager.c: char username[80]
		ps.fail(key, "not the name of a manager user",
			detail{value: ps.shownValue(key), allowed: "1 to 79 bytes on one line"})
	}
}

func (ps *parser) checkTLS(a *Asterisk, path string) {
	path += ".tls"
	if !a.TLS.Enabled {
		for _, key := range []string{"ca_file", "server_name", "insecure"} {
			set := a.TLS.CAFile != "" && key == "ca_file" || a.TLS.ServerName != "" && key == "server_name" ||
				a.TLS.Insecure && key == "insecure"
			if set && !ps.failed[path+".enabled"] {
				ps.fail(path+"."+key, "is set, but TLS is off", detail{hint: "enabled: true beside it, or remove it"})
			}
		}
		return
	}
	if name := a.TLS.ServerName; name != "" && !isHostName(name) {
		if _, err := netip.ParseAddr(name); err != nil {
			ps.fail(path+".server_name", "not a host name", detail{value: ps.shownValue(path + ".server_name"),
				allowed: "the name in Asterisk's certificate"})
		}
	}
	if a.TLS.Insecure && a.TLS.CAFile != "" {
		ps.fail(path+".insecure", "contradicts ca_file: insecure checks no certificate",
			detail{hint: "remove one of them"})
	} else if a.TLS.Insecure {
		ps.warn(path+".insecure", "any certificate is accepted, an attacker's too", detail{hint: "ca_file: PATH"})
	}
	if key := path + ".ca_file"; a.TLS.CAFile != "" && ps.checkAbsolutePath(key, a.TLS.CAFile) {
		ps.caFile(key, a.TLS.CAFile)
	}
}

func (ps *parser) secretPath(a *Asterisk, path string) {
	if a.SecretFile != "" {
		ps.checkAbsolutePath(path+".secret_file", a.SecretFile)
	}
}

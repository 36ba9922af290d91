package policy

import (
	"cmp"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"time"
)

// maxAddress is the length of the longest host name with its port, in bytes. A name may be as long, for it is the address
// where none is given.
const maxAddress = 260

// asterisks checks the list of Asterisks, and completes what follows from the rest: ports, names, secrets.
func (f *file) asterisks(list []Asterisk, mode fs.FileMode) {
	if len(list) == 0 && !f.bad["asterisk"] {
		f.fail("asterisk", "missing", detail{allowed: "a list with an address, a username and a secret for each Asterisk",
			hint: "examples/minimal.yaml"})
	}
	names, addresses := map[string]string{}, map[string]string{}
	literal := ""
	for i := range list {
		a, path := &list[i], fmt.Sprintf("asterisk[%d]", i)
		if f.bad[path] {
			continue
		}
		f.address(a, path)
		f.username(a, path)
		f.tls(a, path)
		if n := f.nodes[path+".secret"]; n != nil && n.Value != "" && !strings.HasPrefix(n.Value, "${") {
			literal = cmp.Or(literal, path+".secret")
		}
		f.secretPath(a, path)
		f.secret(a, path)
		oneOf(f, path+".auth", a.Auth, AuthMD5, AuthPlain)
		oneOf(f, path+".learn", a.Learn, LearnAuto, LearnOff)
		within(f, path+".ping_interval", a.PingInterval, time.Second, 10*time.Minute, durationBound, "")
		if a.Name == "" {
			a.Name = a.Address
		}
		if !printable(a.Name, maxAddress) && f.given(path+".name") {
			f.fail(path+".name", "not usable as a name", detail{value: f.shown(path + ".name"), allowed: "1 to 260 printable bytes"})
		}
		if f.bad[path+".name"] || f.bad[path+".address"] || a.Name == "" {
			continue
		}
		if first, taken := addresses[a.Address]; taken {
			f.fail(path+".address", "the same as "+first+".address; its events would count twice",
				detail{value: f.shown(path + ".address"), hint: "remove one of the two entries"})
		} else if first, taken := names[a.Name]; taken {
			f.fail(path+".name", "the same as the name of "+first, detail{value: f.quote(a.Name), hint: "another name"})
		}
		names[a.Name], addresses[a.Address] = path, path
	}
	if literal != "" && mode&0o004 != 0 {
		f.warn(literal, fmt.Sprintf("everybody on this machine can read the secret (mode %04o)", mode.Perm()),
			detail{hint: "chmod 0640 on the file, or secret_file"})
	}
}

func (f *file) address(a *Asterisk, path string) {
	key := path + ".address"
	if f.bad[key] {
		return
	}
	if a.Address == "" {
		f.fail(key, "missing", detail{hint: "127.0.0.1:5038"})
		return
	}
	port := "5038" // manager.conf.sample of Asterisk: port, and tlsbindaddr's default
	if a.TLS.Enabled {
		port = "5039"
	}
	host, address, ok := hostPort(a.Address, port)
	if ip, err := netip.ParseAddr(host); !ok || !printable(address, maxAddress) || err == nil && ip.IsUnspecified() {
		f.fail(key, "not an address to connect to", detail{value: f.shown(key),
			allowed: "HOST:PORT, [IPv6]:PORT, or HOST for port " + port, hint: "127.0.0.1:" + port})
		return
	}
	a.Address = address
	if a.Auth == AuthPlain && !a.TLS.Enabled && !loopback(host) {
		f.warn(path+".auth", "the secret crosses the network in clear", detail{hint: "auth: md5, or tls: {enabled: true}"})
	}
}

func (f *file) username(a *Asterisk, path string) {
	key := path + ".username"
	switch {
	case f.bad[key]:
	case a.Username == "":
		f.fail(key, "missing", detail{allowed: "the user's section name in manager.conf"})
	case strings.HasPrefix(a.Username, "${"):
		f.fail(key, "environment variables are only read in secret", detail{value: f.shown(key), hint: "the name itself"})
	case !printable(a.Username, 79): // main/manager.c: char username[80]
		f.fail(key, "not the name of a manager user", detail{value: f.shown(key), allowed: "1 to 79 bytes on one line"})
	}
}

func (f *file) tls(a *Asterisk, path string) {
	path += ".tls"
	if !a.TLS.Enabled {
		for _, key := range []string{"ca_file", "server_name", "insecure"} {
			set := a.TLS.CAFile != "" && key == "ca_file" || a.TLS.ServerName != "" && key == "server_name" ||
				a.TLS.Insecure && key == "insecure"
			if set && !f.bad[path+".enabled"] {
				f.fail(path+"."+key, "is set, but TLS is off", detail{hint: "enabled: true beside it, or remove it"})
			}
		}
		return
	}
	if name := a.TLS.ServerName; name != "" && !hostName(name) {
		if _, err := netip.ParseAddr(name); err != nil {
			f.fail(path+".server_name", "not a host name", detail{value: f.shown(path + ".server_name"),
				allowed: "the name in Asterisk's certificate"})
		}
	}
	if a.TLS.Insecure && a.TLS.CAFile != "" {
		f.fail(path+".insecure", "contradicts ca_file: insecure checks no certificate", detail{hint: "remove one of them"})
	} else if a.TLS.Insecure {
		f.warn(path+".insecure", "any certificate is accepted, an attacker's too", detail{hint: "ca_file: PATH"})
	}
	if key := path + ".ca_file"; a.TLS.CAFile != "" && f.absolute(key, a.TLS.CAFile) {
		f.caFile(key, a.TLS.CAFile)
	}
}

func (f *file) secretPath(a *Asterisk, path string) {
	if a.SecretFile != "" {
		f.absolute(path+".secret_file", a.SecretFile)
	}
}

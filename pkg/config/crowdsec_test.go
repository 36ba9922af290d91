package config_test

import "testing"

func TestMistakesOfCrowdSec(t *testing.T) {
	const inClear = `anybody on the way could read the password, and have attackers allowed: "http://192.0.2.1:8080"; ` +
		`allowed: https://HOST:PORT, or http:// to this machine`
	demand(t, []mistake{
		{"nobody", base + "crowdsec: {url: \"http://127.0.0.1:8080\"}\n",
			`ringwall.yaml:5: crowdsec.credentials_file: missing; allowed: the file that cscli machines add writes, its whole path`},
		{"a password that everybody can read", base + "crowdsec: {credentials_file: /open}\n",
			`ringwall.yaml:5: crowdsec.credentials_file: everybody can read /open (mode 0644); try: chmod 0640 /open`},
		{"no credentials", base + "crowdsec: {credentials_file: /closed}\n",
			`ringwall.yaml:5: crowdsec.credentials_file: /closed has no login and password; try: ` +
				`on the machine of the LAPI: cscli machines add NAME --auto --file FILE`},
		{"no address", base + "crowdsec: {credentials_file: /lapi, url: lapi}\n",
			`ringwall.yaml:5: crowdsec.url: not a LAPI's address: "lapi"; allowed: https://HOST:PORT, or http:// to this machine; ` +
				`try: http://127.0.0.1:8080`},
		{"in clear", base + "crowdsec: {credentials_file: /lapi, url: \"http://192.0.2.1:8080\"}\n",
			`ringwall.yaml:5: crowdsec.url: ` + inClear},
		{"in clear, by the file of credentials", base + "crowdsec: {credentials_file: /far}\n",
			`ringwall.yaml:5: crowdsec.url: ` + inClear},
	})
}

func TestCrowdSecOfTheFile(t *testing.T) {
	for text, url := range map[string]string{
		"credentials_file: /lapi": "http://127.0.0.1:8080/",
		"credentials_file: /far, url: \"https://lapi.example.com:8080\"": "https://lapi.example.com:8080",
	} {
		c, _, err := parse(base + "crowdsec: {" + text + "}\n")
		if err != nil {
			t.Fatal(err)
		}
		if s := c.CrowdSec; s.URL != url || s.Login != "pbx" || s.Password.Reveal() != "hunter2" || !s.ProvenOnly {
			t.Errorf("%+v", s)
		}
	}
}

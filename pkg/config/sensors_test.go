package config_test

import (
	"testing"

	"github.com/ringwall/ringwall/pkg/config"
)

func TestMistakesOfSensors(t *testing.T) {
	demand(t, []mistake{
		{"a tap that is neither", base + "sensors:\n  tap: yes please\n",
			`ringwall.yaml:6: sensors.tap: not one of the values: "yes please"; allowed: auto, on, off`},
		{"a group of 0", base + "sensors: {tap_group: 0}\n",
			`ringwall.yaml:5: sensors.tap_group: out of range: "0"; allowed: 1 to 65535`},
		{"a name to listen on", base + "sensors:\n  hep: {listen: \"homer:9061\"}\n",
			`ringwall.yaml:6: sensors.hep.listen: not an address to listen on: "homer:9061"; allowed: ADDRESS:PORT, or "" for off; try: 127.0.0.1:9061`},
		{"open to others without a password", base + "sensors:\n  hep: {listen: \"192.0.2.1:9061\"}\n",
			`ringwall.yaml:6: sensors.hep.listen: other machines could tell of attacks that were none: "192.0.2.1:9061"; ` +
				`allowed: an address of loopback, or password_file, with the same as capture_password in hep.conf; try: 127.0.0.1:9061`},
		{"a password that everybody can read", base + "sensors:\n  hep: {listen: \"127.0.0.1:9061\", password_file: /open}\n",
			`ringwall.yaml:6: sensors.hep.password_file: everybody can read /open (mode 0644); try: chmod 0640 /open`},
		{"a password file without its whole path", base + "sensors:\n  hep: {password_file: closed}\n",
			`ringwall.yaml:6: sensors.hep.password_file: not a file's whole path: (hidden); allowed: a path that begins with /`},
		{"nowhere to send on", base + "sensors:\n  hep: {forward: \"homer:\"}\n",
			`ringwall.yaml:6: sensors.hep.forward: not an address to send to: "homer:"; allowed: HOST:PORT, or "" for none; try: 192.0.2.1:9060`},
		{"a list without its whole path", base + "policy:\n  signatures: {files: [scanners.txt]}\n",
			`ringwall.yaml:6: policy.signatures.files[0]: not a file's whole path: "scanners.txt"; allowed: a path that begins with /`},
	})
}

func TestSensorsOfTheFile(t *testing.T) {
	c, _, err := parse(base + "sensors:\n  tap: off\n  hep: {listen: 127.0.0.1, password_file: /closed, forward: homer}\n")
	if err != nil {
		t.Fatal(err)
	}
	s := c.Sensors
	if s.Tap != config.TapOff || s.TapGroup != 506 || s.HEP.Listen != "127.0.0.1:9061" || s.HEP.Password.Reveal() != "hunter2" ||
		s.HEP.Forward != "homer:9060" {
		t.Errorf("%+v", s)
	}
}

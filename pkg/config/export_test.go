package config_test

import (
	"testing"

	"github.com/ringwall/ringwall/pkg/export"
)

func TestMistakesOfExport(t *testing.T) {
	demand(t, []mistake{
		{"open to everybody", base + "export: {listen: \"192.0.2.1:9647\"}\n",
			`ringwall.yaml:5: export.listen: everybody could read whom you ban: "192.0.2.1:9647"; ` +
				`allowed: an address of loopback, or token_file; try: 127.0.0.1:9647`},
		{"no address", base + "export: {listen: edge}\n",
			`ringwall.yaml:5: export.listen: not an address to listen on: "edge"; allowed: HOST:PORT, or "" for nowhere; try: 127.0.0.1:9647`},
		{"a format of nobody's", base + "export: {format: csv}\n",
			`ringwall.yaml:5: export.format: not one of the values: "csv"; allowed: plain, json, nft, mikrotik`},
		{"a token that everybody can read", base + "export: {token_file: /open}\n",
			`ringwall.yaml:5: export.token_file: everybody can read /open (mode 0644); try: chmod 0640 /open`},
	})
}

func TestExportOfTheFile(t *testing.T) {
	c, _, err := parse(base + "export: {listen: \"192.0.2.1:9647\", token_file: /closed, format: nft, proven_only: false}\n")
	if err != nil {
		t.Fatal(err)
	}
	if e := c.Export; e.Listen != "192.0.2.1:9647" || e.Token.Reveal() != "hunter2" || e.Format != export.NFT || e.ProvenOnly {
		t.Errorf("%+v", e)
	}
}

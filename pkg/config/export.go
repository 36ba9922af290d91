package config

import "github.com/ringwall/ringwall/pkg/export"

// Export is where our own bans are for other firewalls.
type Export struct {
	Listen     string        `yaml:"listen"` // "" is nowhere
	File       string        `yaml:"file"`
	Format     export.Format `yaml:"format"`
	ProvenOnly bool          `yaml:"proven_only"`
	TokenFile  string        `yaml:"token_file"`
	Token      Secret        `yaml:"-"` // of TokenFile
}

// checkExport checks who can read the bans.
func (ps *parser) checkExport(e *Export) {
	const listen, file = "export.listen", "export.token_file"
	if e.TokenFile != "" && !ps.failed[file] && !ps.env.WithoutSecrets {
		e.Token = ps.secretFile(file, e.TokenFile, false)
	}
	host, address, ok := ps.listenAddress(listen, e.Listen, "nowhere", "127.0.0.1:9647")
	if !ok {
		return
	}
	if !isLoopback(host) && e.TokenFile == "" {
		ps.fail(listen, "everybody could read whom you ban", detail{value: ps.shownValue(listen),
			allowed: "an address of loopback, or token_file", hint: "127.0.0.1:9647"})
	}
	e.Listen = address
}

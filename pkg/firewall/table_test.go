package firewall

import (
	"testing"
)

func TestFirst(t *testing.T) {
	s := newSpace(t)
	cfg := testConfig(s)
	cfg.Meter = Meter{true, 100, 500}
	fw := ensured(t, cfg)
	t.Log(s.command(t, "nft list ruleset"))
	ensure(t, fw, Adopted)
	cfg.Owner = Auto
	cfg.Scope = All
	_ = fw.Close()
	fw = openTable(t, cfg)
	ensure(t, fw, Migrated)
	t.Log(fw.Owned())
	t.Log(s.command(t, "nft list ruleset"))
	ensure(t, fw, Adopted)
}

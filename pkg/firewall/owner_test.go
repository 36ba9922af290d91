package firewall

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// ownedTable asks for the flags; on a kernel before 6.9 there is nothing to test but the reason.
func ownedTable(t *testing.T, s space) *Table {
	cfg := testConfig(s)
	cfg.Owner = Auto
	fw := ensured(t, cfg)
	if ok, reason := fw.IsOwned(); !ok {
		if !strings.Contains(reason, "6.9") {
			t.Errorf("no owner, and the reason is %q", reason)
		}
		t.Skip(reason)
	}
	return fw
}

func TestOwnedTableSurvivesFlushAndCrash(t *testing.T) {
	s := newSpace(t)
	fw := ownedTable(t, s)
	apply(t, fw, ban("192.0.2.1", time.Hour), ban("10.0.0.0/8", time.Hour))
	s.command(t, "nft flush ruleset")
	if err := fw.VerifyTable(); err != nil {
		t.Errorf("after a flush: %v", err)
	}
	if out, err := s.try("nft add element inet ringwall ban4 '{ 192.0.2.9 timeout 1h }'"); err == nil {
		t.Errorf("a foreign nft changed the table: %s", out)
	}
	// Another process cannot have it while this one lives.
	cfg := testConfig(s)
	cfg.Owner = On
	other := openTable(t, cfg)
	if _, err := other.EnsureTable(); !errors.Is(err, ErrPermission) {
		t.Errorf("a second owner: %v", err)
	}
	_ = fw.Close() // all that a crash leaves is a closed socket
	if out := s.command(t, "nft list table inet ringwall"); !strings.Contains(out, "192.0.2.1 timeout 1h") {
		t.Errorf("the ban went with the process:\n%s", out)
	}
	ensure(t, other, Adopted)
	holds(t, other, Ban, "192.0.2.1", time.Hour)
	holds(t, other, Ban, "10.0.0.0/8", time.Hour)
	apply(t, other, unban("192.0.2.1"), ban("192.0.2.2", time.Hour))
	lacks(t, other, Ban, "192.0.2.1")
}

func TestOwnedTableIsKeptAcrossARedial(t *testing.T) {
	s := newSpace(t)
	fw := ownedTable(t, s)
	apply(t, fw, ban("192.0.2.1", time.Hour))
	port := fw.NetlinkPort()
	fw.mustEnsure = true // as after an error
	ensure(t, fw, Adopted)
	if fw.NetlinkPort() == 0 || fw.NetlinkPort() == port {
		t.Logf("port id %d was given again", port)
	}
	holds(t, fw, Ban, "192.0.2.1", time.Hour)
	apply(t, fw, ban("192.0.2.1", 2*time.Hour))
	holds(t, fw, Ban, "192.0.2.1", 2*time.Hour)
}

func TestOwnerCanBeTurnedOnAndOff(t *testing.T) {
	s := newSpace(t)
	fw := ownedTable(t, s)
	apply(t, fw, ban("192.0.2.1", time.Hour))
	_ = fw.Close()
	off := openTable(t, testConfig(s))
	ensure(t, off, Migrated)
	holds(t, off, Ban, "192.0.2.1", time.Hour)
	if ok, reason := off.IsOwned(); ok || reason == "" {
		t.Errorf("owned %v, reason %q", ok, reason)
	}
	s.command(t, "nft add element inet ringwall ban4 '{ 192.0.2.9 timeout 1h }'")
	_ = off.Close()
	cfg := testConfig(s)
	cfg.Owner = On
	on := openTable(t, cfg)
	ensure(t, on, Migrated)
	holds(t, on, Ban, "192.0.2.1", time.Hour)
	holds(t, on, Ban, "192.0.2.9", time.Hour)
}

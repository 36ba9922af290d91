package firewall

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/firewall/internal/nfnl"
)

// ownership is what the Owner of the configuration came to.
type ownership uint8

const (
	ownerUnknown ownership = iota
	ownerYes
	ownerNo
)

// chooseOwnerLocked asks the kernel once whether it knows owner and persist.
func (t *Table) chooseOwnerLocked() error {
	if t.ownership != ownerUnknown {
		return nil
	}
	if t.cfg.Owner == Off {
		t.setOwnerLocked(ownerNo, "turned off in the configuration")
		return nil
	}
	err := probeOwner(t.writeConn, t.cfg.Table)
	switch {
	case err == nil:
		t.setOwnerLocked(ownerYes, "")
		return nil
	case t.cfg.Owner == On || !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL):
		return err
	}
	t.setOwnerLocked(ownerNo,
		fmt.Sprintf("this kernel does not know the table flags owner and persist, 6.9 and later do (%v)", err))
	return nil
}

func (t *Table) setOwnerLocked(o ownership, reason string) {
	t.ownership = o
	t.stateMu.Lock()
	t.notOwnedBecause = reason
	t.stateMu.Unlock()
}

// probeOwner asks whether the kernel knows the table flags owner and persist. It makes and deletes a table in one
// transaction, so nobody ever sees it.
func probeOwner(conn *nfnl.Conn, table string) error {
	probe := probeTable(table)
	probe.Flags = nftables.TableFlagOwner | nftables.TableFlagPersist
	conn.Nftables.AddTable(probe)
	conn.Nftables.DelTable(probe)
	return explainErrno("ask for a table with the flags owner and persist", conn.Nftables.Flush())
}

// probeTable is a table for a question to the kernel, beside another.
func probeTable(table string) *nftables.Table {
	name := table + ".probe"
	if len(name) > maxName {
		name = table[:maxName-50] + ".probe"
	}
	return &nftables.Table{Name: name, Family: nftables.TableFamilyINet}
}

package firewall

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// ownership is what the Owner of the configuration came to.
type ownership uint8

const (
	ownerUnknown ownership = iota
	ownerYes
	ownerNo
)

// chooseOwner asks the kernel once whether it knows owner and persist.
// Called with mu.
func (t *Table) chooseOwner() error {
	if t.owner != ownerUnknown {
		return nil
	}
	if t.cfg.Owner == Off {
		t.setOwner(ownerNo, "turned off in the configuration")
		return nil
	}
	// Made and deleted in one transaction, so nobody ever sees the table.
	probe := &nftables.Table{
		Name: t.cfg.Table + ".probe", Family: nftables.TableFamilyINet,
		Flags: nftables.TableFlagOwner | nftables.TableFlagPersist,
	}
	if len(probe.Name) > 255 {
		probe.Name = t.cfg.Table[:200] + ".probe"
	}
	t.w.Nftables.AddTable(probe)
	t.w.Nftables.DelTable(probe)
	err := t.w.Nftables.Flush()
	switch {
	case err == nil:
		t.setOwner(ownerYes, "")
		return nil
	case t.cfg.Owner == On || !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EINVAL):
		return explain("ask for a table with the flags owner and persist", err)
	}
	t.setOwner(ownerNo, fmt.Sprintf("this kernel does not know the table flags owner and persist, 6.9 and later do (%v)", err))
	return nil
}

func (t *Table) setOwner(o ownership, reason string) {
	t.owner = o
	t.state.Lock()
	t.reason = reason
	t.state.Unlock()
}

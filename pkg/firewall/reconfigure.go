package firewall

import (
	"context"
	"fmt"
	"reflect"
	"slices"
)

// Reconfigure changes the scope, the ports, the priority, the meter and the knock of a table that is in use. The tap
// stays as [Table.SetTap] left it, lists of another mode hold nothing before the next [Table.SetLists], and the rest of
// cfg has to be as it was in Open. Rules and sets are exchanged in one transaction: no packet meets a chain without
// them, and elements and counters stay. Another priority is another chain, which the kernel exchanges as it does for
// [Migrated]. After an error the kernel has what it had.
func (t *Table) Reconfigure(cfg Config) error {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return err
	}
	t.writeMu.Lock()
	defer t.writeMu.Unlock()
	old := t.cfg
	if cfg.Table != old.Table || cfg.Owner != old.Owner || cfg.IPv6Prefix != old.IPv6Prefix ||
		cfg.MaxElements != old.MaxElements {
		return fmt.Errorf("%w: table, owner, the IPv6 prefix and the number of elements stay as they are", ErrChange)
	}
	cfg.NetNS, cfg.noReject, cfg.noPaces = old.NetNS, old.noReject, old.noPaces
	cfg.Tap, cfg.noTap, cfg.liveLists = old.Tap, old.noTap, old.liveLists
	if err := t.changeLocked(cfg); err != nil {
		return err
	}
	if !slices.Equal(cfg.Lists, old.Lists) {
		t.setListState(func() { t.lists.filled = false })
	}
	return nil
}

// changeLocked builds the table with another configuration.
func (t *Table) changeLocked(cfg Config) error {
	old := t.cfg
	cfg.clonePorts()
	if reflect.DeepEqual(cfg, old) {
		return nil
	}
	t.setConfigLocked(cfg)
	if t.mustEnsure {
		return nil // whoever ensures it next builds it so
	}
	cautious := t.elementsUnknown
	outcome, err := t.ensureLocked()
	if err != nil {
		t.setConfigLocked(old)
		return err
	}
	if outcome == Adopted { // our own: what was known of its elements still is
		t.elementsUnknown = cautious
	}
	return nil
}

// setConfigLocked exchanges what can change of the configuration. Who only reads has the lock of the state.
func (t *Table) setConfigLocked(cfg Config) {
	t.stateMu.Lock()
	defer t.stateMu.Unlock()
	t.cfg.Scope, t.cfg.UDPPorts, t.cfg.TCPPorts = cfg.Scope, cfg.UDPPorts, cfg.TCPPorts
	t.cfg.ManagerPorts, t.cfg.Lists = cfg.ManagerPorts, cfg.Lists
	t.cfg.Priority, t.cfg.Meter, t.cfg.Knock, t.cfg.Tap = cfg.Priority, cfg.Meter, cfg.Knock, cfg.Tap
}

// currentConfig is the configuration for those who do not hold writeMu.
func (t *Table) currentConfig() Config {
	t.stateMu.Lock()
	defer t.stateMu.Unlock()
	return t.cfg
}

// reconfigurer is a Firewall that can be changed while it is in use.
type reconfigurer interface {
	Reconfigure(Config) error
}

// Reconfigure is [Table.Reconfigure] in the Writer's turn, for which it waits as long as ctx: while the table is
// being built again and again, nobody can change it.
func (w *Writer) Reconfigure(ctx context.Context, cfg Config) error {
	fw, ok := w.fw.(reconfigurer)
	if !ok {
		return nil
	}
	if err := w.waitForTurn(ctx); err != nil {
		return err
	}
	defer w.writing.Unlock()
	return fw.Reconfigure(cfg)
}

// waitForTurn locks the Writer's turn.
func (w *Writer) waitForTurn(ctx context.Context) error {
	for !w.writing.TryLock() {
		if !sleep(ctx, backoffMin) {
			if err := w.Err(); err != nil {
				return fmt.Errorf("firewall: the table cannot be changed now: %w", err)
			}
			return fmt.Errorf("firewall: the table cannot be changed now: %w", ctx.Err())
		}
	}
	return nil
}

package daemon

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/export"
	"github.com/ringwall/ringwall/pkg/store"
)

// exportInterval is how often it is looked whether the file of bans is still right.
const exportInterval = 5 * time.Second

// openExport gives our bans to other firewalls, if that is asked for.
func (d *Daemon) openExport() (opened, error) {
	cfg := d.config.currentConfig().Export
	var o opened
	if cfg.File != "" {
		f := &exportFile{daemon: d, cfg: cfg}
		if err := f.tryFolder(); err != nil {
			return o, err
		}
		o.tasks = append(o.tasks, startAfterTask{f, d.allBuilt}) // a file without the bans of before would let them in
	}
	if cfg.Listen == "" {
		return o, nil
	}
	if cfg.TokenFile != "" && cfg.Token.IsZero() {
		return opened{}, errors.New("the token cannot be read from " + cfg.TokenFile)
	}
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return opened{}, err
	}
	o.close = func() error {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
	handler := &export.Handler{Format: cfg.Format, Token: cfg.Token.Reveal(),
		Bans: func(ctx context.Context) ([]export.Ban, error) { return d.exportedBans(ctx, cfg) }}
	o.tasks = append(o.tasks, &metricsServer{listener: newBoundedListener(l, d.log), handler: markServing(handler)})
	return o, nil
}

// exportedBans are the bans for others. None is missing because it has not been brought back yet after a restart.
func (d *Daemon) exportedBans(ctx context.Context, cfg config.Export) (bans []export.Ban, err error) {
	select {
	case <-d.allBuilt:
	default:
		return nil, errors.New("the bans of before are not all back yet")
	}
	err = backend{d}.Bans(ctx, api.BanFilter{}, func(some []ban.Ban) error {
		for i := range some {
			if b := &some[i]; isExported(b, cfg.ProvenOnly) {
				bans = append(bans, export.Ban{Prefix: b.Prefix, Until: b.Until, Reason: string(b.Reason),
					Proven: b.Proven, Manual: b.Manual})
			}
		}
		return nil
	})
	return bans, err
}

// isExported takes the bans that another firewall should have, which closes everything to them. With provenOnly there
// is none that a forged packet could have made, and none of one service.
func isExported(b *ban.Ban, provenOnly bool) bool {
	if b.Observed {
		return false
	}
	return !provenOnly || (b.Proven || b.Manual) && (b.Scope == ban.ScopeSource || b.Scope == ban.ScopeNetwork)
}

// exportFile keeps the file of bans.
type exportFile struct {
	daemon  *Daemon
	cfg     config.Export
	written []byte
}

// String names the task.
func (*exportFile) String() string { return "export.file" }

// tryFolder finds out whether the file can be written.
func (f *exportFile) tryFolder() error {
	t, err := os.CreateTemp(filepath.Dir(f.cfg.File), ".ringwall-export-*")
	if err != nil {
		return err
	}
	return errors.Join(t.Close(), os.Remove(t.Name()))
}

// Run writes it until ctx ends.
func (f *exportFile) Run(ctx context.Context) error {
	tick := time.NewTicker(exportInterval)
	defer tick.Stop()
	for {
		if err := f.write(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// write writes the file where its bans are others than it has; nobody ever reads a half of it.
func (f *exportFile) write(ctx context.Context) error {
	if ctx.Err() != nil {
		return nil
	}
	bans, err := f.daemon.exportedBans(ctx, f.cfg)
	if err != nil {
		return err
	}
	text := export.Text(f.cfg.Format, bans)
	if f.written != nil && bytes.Equal(text, f.written) {
		return nil
	}
	if err := store.WriteForGroup(f.cfg.File, text); err != nil {
		return err
	}
	f.written = text
	return nil
}

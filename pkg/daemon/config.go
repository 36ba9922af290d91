package daemon

import (
	"context"
	"fmt"
	"reflect"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/policy"
)

// configuration is the file in force.
type configuration struct {
	path     string
	warnings []policy.Warning

	mu     sync.Mutex
	cfg    *policy.Config
	loaded time.Time
	err    error // why the latest file is not in force
}

func loadConfiguration(o Options) (*configuration, error) {
	c := &configuration{path: o.ConfigPath, loaded: time.Now()}
	if o.Config != nil {
		c.cfg = o.Config
		return c, nil
	}
	cfg, warnings, err := policy.Load(o.ConfigPath, policy.OS())
	if err != nil {
		return nil, err
	}
	if o.Socket != "" {
		cfg.Control.Socket = o.Socket
	}
	c.cfg, c.warnings = cfg, warnings
	return c, nil
}

func (c *configuration) current() *policy.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cfg
}

// Reload reads the configuration again. A file with a mistake changes nothing. The policy and the log level take effect
// at once; what needs a restart is named.
func (d *Daemon) Reload(ctx context.Context) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err == nil {
		d.notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", systemd.SdNotifyReloading, now.Nano()/1000))
	}
	defer d.ready()
	cfg, warnings, err := policy.Load(d.config.path, policy.OS())
	if err == nil && d.opts.Socket != "" {
		cfg.Control.Socket = d.opts.Socket
	}
	d.config.mu.Lock()
	old := d.config.cfg
	d.config.err = err
	if err == nil {
		d.config.cfg, d.config.loaded, d.config.warnings = cfg, time.Now(), warnings
	}
	d.config.mu.Unlock()
	d.counts.Reloaded(err == nil)
	if err != nil {
		d.log.Error("the new configuration has mistakes; the old one stays in force", "err", err)
		return
	}
	for _, w := range warnings {
		d.log.Warn("configuration", "warning", w.String())
	}
	setLevel(d.level, cfg.Log.Level)
	d.atlas.Configure(cfg.Geo.Files)
	_, err = d.judge.command(ctx, func(e *engine.Engine, now time.Time) ([]engine.Decision, error) {
		out := e.Configure(now, cfg.Policy)
		e.Weigh(cfg.Geo.Multiply, d.locate)
		return out, nil
	})
	if err != nil {
		d.log.Error("the kernel has not taken the new configuration yet", "err", err)
	}
	d.known.configure(cfg.Policy)
	d.again()
	d.log.Info("the configuration was read again", "file", d.config.path)
	for _, part := range restartNeeded(old, cfg) {
		d.log.Warn("this change needs a restart: systemctl restart ringwall", "key", part)
	}
}

// restartNeeded names the parts of the configuration that changed and are read at the start only.
func restartNeeded(old, new *policy.Config) []string {
	var parts []string
	for _, p := range []struct {
		key      string
		old, new any
	}{
		{"asterisk", old.Asterisk, new.Asterisk}, {"firewall", old.Firewall, new.Firewall},
		{"metrics", old.Metrics, new.Metrics}, {"control", old.Control, new.Control}, {"state", old.State, new.State},
		{"log.format", old.Log.Format, new.Log.Format},
	} {
		if !reflect.DeepEqual(p.old, p.new) {
			parts = append(parts, p.key)
		}
	}
	return parts
}

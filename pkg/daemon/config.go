package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/policy"
	"github.com/ringwall/ringwall/pkg/store"
)

// configuration is the file in force.
type configuration struct {
	path     string
	accepted string // where the last accepted text is kept; empty: nowhere
	warnings []policy.Warning

	mu     sync.Mutex
	cfg    *policy.Config
	loaded time.Time
	err    error  // why the latest file is not in force
	old    string // what is in force in its place since the start
	text   []byte // of cfg, that is to be kept; nil where it is
}

// stateFolder is where systemd's StateDirectory puts things, and the default of state.path.
const stateFolder = "/var/lib/ringwall"

// acceptedPath is where the last accepted text of a configuration file is kept. It must be known without that file.
func acceptedPath(config string) string {
	dir, _, _ := strings.Cut(os.Getenv("STATE_DIRECTORY"), ":") // systemd.exec(5)
	if dir == "" {
		dir = stateFolder
	}
	if abs, err := filepath.Abs(config); err == nil {
		config = abs
	}
	return filepath.Join(dir, "accepted"+strings.ReplaceAll(config, "/", "-"))
}

// loadConfiguration reads the file for a start. A start that has an accepted text of before does not fail: where only a
// secret or a certificate cannot be read, the file is in force without it, and where the file itself is of no use, the text of
// before. Either is said wherever somebody looks.
func loadConfiguration(o Options) (*configuration, error) {
	c := &configuration{path: o.ConfigPath, loaded: time.Now()}
	if o.Config != nil {
		c.cfg = o.Config
		return c, nil
	}
	c.accepted = acceptedPath(o.ConfigPath)
	c.cfg, c.text, c.warnings, c.err = policy.LoadText(o.ConfigPath, policy.OS())
	if c.err != nil {
		c.text = nil
		info, err := os.Stat(c.accepted)
		if err != nil {
			return nil, c.err // there was none that worked
		}
		env := policy.OS()
		env.Lenient = true
		if c.cfg, c.warnings, err = policy.Load(o.ConfigPath, env); err == nil {
			c.old = "what else it says"
		} else if c.cfg, c.warnings, err = policy.Load(c.accepted, env); err == nil {
			c.loaded = info.ModTime()
			c.old = fmt.Sprintf("the last accepted one, of %s, %s", stampOf(c.loaded), c.accepted)
		} else {
			return nil, errors.Join(c.err, fmt.Errorf("nor is the last accepted configuration of use: %w", err))
		}
	}
	if o.Socket != "" {
		c.cfg.Control.Socket = o.Socket
	}
	return c, nil
}

// keep keeps the text that is in force, for a start whose file is of no use. Secrets that are written in the file are in the
// copy, too: it is for the daemon's user alone, as the state is. References to other files and to variables stay references.
func (c *configuration) keep() error {
	c.mu.Lock()
	text, cfg := c.text, c.cfg
	c.text = nil
	c.mu.Unlock()
	if text == nil || c.accepted == "" || os.Getenv("STATE_DIRECTORY") == "" && filepath.Dir(cfg.State.Path) != stateFolder {
		return nil // nobody's service: nothing is left on this machine
	}
	have, err := os.ReadFile(c.accepted)
	if err == nil && bytes.Equal(have, text) {
		return nil
	}
	if err := store.WriteFile(c.accepted, text, false); err != nil {
		c.mu.Lock()
		if c.text == nil {
			c.text = text
		}
		c.mu.Unlock()
		return err
	}
	return nil
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
	cfg, text, warnings, err := policy.LoadText(d.config.path, policy.OS())
	if err == nil && d.opts.Socket != "" {
		cfg.Control.Socket = d.opts.Socket
	}
	d.config.mu.Lock()
	old := d.config.cfg
	d.config.err = err
	if err == nil {
		d.config.cfg, d.config.loaded, d.config.warnings = cfg, time.Now(), warnings
		d.config.text, d.config.old = text, ""
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
	d.keepConfiguration()
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

// keepConfiguration keeps what is in force, or says why it cannot.
func (d *Daemon) keepConfiguration() {
	d.faults.note("the copy of the last accepted configuration", "look at the disk of "+filepath.Dir(d.config.accepted), d.config.keep())
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

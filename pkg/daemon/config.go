package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/engine"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/store"
)

// configuration is the file in force.
type configuration struct {
	path     string
	atStart  *config.Config // of the start
	accepted string         // where the last accepted text is kept; empty: nowhere
	warnings []config.Warning

	mu      sync.Mutex
	cfg     *config.Config
	loaded  time.Time
	err     error  // why the latest file is not in force
	inForce string // what is in force in its place since the start
	text    []byte // of cfg, that is to be kept; nil where it is
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
// secret or a certificate cannot be read, the file is in force without it, and where the file itself is of no use, the
// text of before. Either is said wherever somebody looks.
func loadConfiguration(o Options) (*configuration, error) {
	c := &configuration{path: o.ConfigPath, loaded: time.Now()}
	if o.Config != nil {
		c.cfg, c.atStart = o.Config, o.Config
		return c, nil
	}
	c.accepted = acceptedPath(o.ConfigPath)
	c.cfg, c.text, c.warnings, c.err = config.LoadText(o.ConfigPath, config.OS())
	if c.err != nil {
		c.text = nil
		info, err := os.Stat(c.accepted)
		if err != nil {
			return nil, c.err // there was none that worked
		}
		env := config.OS()
		env.Lenient = true
		if c.cfg, c.warnings, err = config.Load(o.ConfigPath, env); err == nil {
			c.inForce = "what else it says"
		} else if c.cfg, c.warnings, err = config.Load(c.accepted, env); err == nil {
			c.loaded = info.ModTime()
			c.inForce = fmt.Sprintf("the last accepted one, of %s, %s", minuteOf(c.loaded), c.accepted)
		} else {
			return nil, errors.Join(c.err, fmt.Errorf("nor is the last accepted configuration of use: %w", err))
		}
	}
	if o.Socket != "" {
		c.cfg.Control.Socket = o.Socket
	}
	c.atStart = c.cfg
	return c, nil
}

// keepAccepted keeps the text that is in force, for a start whose file is of no use. Secrets that are written in the
// file are in the copy, too: it is for the daemon's user alone, as the state is. References to other files and to
// variables stay references.
func (c *configuration) keepAccepted() error {
	c.mu.Lock()
	text, cfg := c.text, c.cfg
	c.text = nil
	c.mu.Unlock()
	if text == nil || c.accepted == "" || os.Getenv("STATE_DIRECTORY") == "" &&
		filepath.Dir(cfg.State.Path) != stateFolder {
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

func (c *configuration) currentConfig() *config.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cfg
}

// reloadPatience is how long a reload waits for the kernel's table, while that is being built again.
const reloadPatience = 5 * time.Second

// Reload reads the configuration again. A file with a mistake, or that the kernel does not take, changes nothing. The
// policy, the table, the metrics and the log level take effect at once; what needs a restart is named, here and in
// status.
func (d *Daemon) Reload(ctx context.Context) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err == nil {
		d.notifySystemd(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", systemd.SdNotifyReloading, now.Nano()/1000))
	}
	defer d.notifyReady()
	cfg, text, warnings, err := config.LoadText(d.config.path, config.OS())
	if err == nil && d.opts.Socket != "" {
		cfg.Control.Socket = d.opts.Socket
	}
	old := d.config.currentConfig()
	if err == nil {
		err = d.reconfigureKernel(ctx, cfg)
	}
	d.config.mu.Lock()
	d.config.err = err
	if err == nil {
		d.config.cfg, d.config.loaded, d.config.warnings = cfg, time.Now(), warnings
		d.config.text, d.config.inForce = text, ""
	}
	d.config.mu.Unlock()
	d.metrics.SetReloaded(err == nil)
	if err != nil {
		d.log.Error("the new configuration is not taken over; the old one stays in force", "err", err)
		return
	}
	for _, w := range warnings {
		d.log.Warn("configuration", "warning", w.String())
	}
	d.keepConfiguration()
	setLevel(d.level, cfg.Log.Level)
	d.geoFiles.Configure(cfg.Geo.Files)
	_, err = d.pipeline.UpdateEngineAndWait(ctx, func(e *engine.Engine, now time.Time) ([]ban.Decision, error) {
		out := e.Configure(now, cfg.Policy)
		e.SetMultipliers(cfg.Geo.Multiply, d.placeOf)
		return out, nil
	})
	if err != nil {
		d.log.Error("the kernel has not taken the new configuration yet", hint.Attr(err))
	}
	d.allowSources.setConfigHosts(cfg.Policy)
	d.lists.configure(cfg)
	d.setMemoryBudget()
	d.reopenParts(old, cfg)
	d.drops.lookSoon()
	for _, p := range d.pbxs {
		p.session.Retry() // what was mended may have been Asterisk's side
	}
	d.log.Info("the configuration was read again", "file", d.config.path)
	for _, part := range d.config.changedSinceStart() {
		d.log.Warn("this change needs a restart: systemctl restart ringwall; bans stay in force", "key", part)
	}
}

// reconfigureKernel changes the kernel's table to what a new configuration says of it, but for what needs a restart.
func (d *Daemon) reconfigureKernel(ctx context.Context, cfg *config.Config) error {
	want, have := TableConfig(cfg, d.opts.NetNS), TableConfig(d.config.atStart, d.opts.NetNS)
	want.Table, want.Owner, want.IPv6Prefix, want.MaxElements = have.Table, have.Owner, have.IPv6Prefix,
		have.MaxElements
	d.ports.setConfig(cfg.Firewall)
	want.UDPPorts, want.TCPPorts = d.ports.portsToClose()
	want.Lists = tableLists(cfg)
	// Before the rules: what the meter spares must be known when it begins, and need not be when it ends.
	d.pipeline.SetMeter(d.needsTrust(cfg))
	ctx, cancel := context.WithTimeout(ctx, reloadPatience)
	defer cancel()
	if err := d.writer.Reconfigure(ctx, want); err != nil {
		d.ports.setConfig(d.config.currentConfig().Firewall)
		d.pipeline.SetMeter(d.needsTrust(d.config.currentConfig()))
		return fmt.Errorf("firewall: %w", err)
	}
	if d.needsTrust(cfg) {
		d.pipeline.RefreshTrust()
	}
	return nil
}

// needsTrust reports whether the kernel has to know whom the engine trusts: the meter and the lists spare them.
func (d *Daemon) needsTrust(cfg *config.Config) bool {
	return cfg.Firewall.Meter.Enabled || len(cfg.Lists) > 0
}

// keepConfiguration keeps what is in force, or says why it cannot.
func (d *Daemon) keepConfiguration() {
	d.faults.setFault("the copy of the last accepted configuration",
		"look at the disk of "+filepath.Dir(d.config.accepted),
		d.config.keepAccepted())
}

// changedSinceStart names the keys that have changed since the start and are read there alone.
func (c *configuration) changedSinceStart() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return restartNeeded(c.atStart, c.cfg)
}

func restartNeeded(old, new *config.Config) []string {
	return config.NeedRestart(atStart(old), atStart(new))
}

// atStart is a configuration as far as the start of the daemon is concerned: without secrets that are read before each
// login, and with the size of the kernel's sets, for which policy.limits.bans may be too small to matter.
func atStart(c *config.Config) *config.Config {
	view := *c
	view.Asterisk = sessionsAtStart(c)
	view.Policy.Limits.Bans = int(TableConfig(c, 0).MaxElements)
	return &view
}

// sessionsAtStart are the Asterisks without those secrets that are read before each login.
func sessionsAtStart(c *config.Config) []config.Asterisk {
	list := slices.Clone(c.Asterisk)
	for i := range list {
		if list[i].SecretFile != "" {
			list[i].Secret = config.Secret{}
		}
	}
	return list
}

package daemon

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/hint"
	"github.com/ringwall/ringwall/pkg/pipeline"
	"github.com/ringwall/ringwall/pkg/store"
)

// kernelState is what is known of the table besides its elements.
type kernelState struct {
	mu          sync.Mutex
	rebuilds    map[string]uint64
	sampleSize  int // at the last sample
	sampleFound int
	sampledAt   time.Time
	dropped     map[string]uint64
	droppedAt   time.Time
}

// openKernel opens the table and takes over what is in it.
func (d *Daemon) openKernel(cfg *config.Config) error {
	d.kernel = &kernelState{rebuilds: make(map[string]uint64)}
	if d.opts.DryRun {
		d.fw = firewall.NewDryRun(func(line string) { d.log.Info("dry run", "nft", line) })
	} else {
		c := TableConfig(cfg, d.opts.NetNS)
		c.UDPPorts, c.TCPPorts = d.ports.portsToClose()
		c.Lists = tableLists(cfg)
		t, err := firewall.Open(c)
		if err != nil {
			return fmt.Errorf("the kernel's firewall: %w", err)
		}
		d.fw = t
	}
	d.closers = append(d.closers, d.fw.Close)
	outcome, err := d.fw.EnsureTable()
	if err != nil {
		return fmt.Errorf("the kernel's firewall: %w", err)
	}
	d.countRebuild(string(outcome))
	stored, err := d.openStore(cfg)
	if err != nil {
		return fmt.Errorf("the state: %w", err)
	}
	var pbxs []string
	for _, a := range cfg.Asterisk {
		pbxs = append(pbxs, a.Name)
	}
	stored.Allow = d.allowed.mergeStored(stored.Allow, d.stateLost)
	if d.listLost && outcome != firewall.Created {
		found, err := d.foundAllowed(cfg, stored.Allow)
		if err != nil {
			return fmt.Errorf("the kernel's firewall: %w", err)
		}
		stored.Allow, d.foundAny = append(stored.Allow, found...), len(found) > 0
	}
	if d.stateLost != "" {
		for _, a := range stored.Allow {
			d.pipeline.SaveChanges([]store.Change{store.PutAllow(a)})
		}
	}
	for _, a := range stored.Allow { // before the bans are taken over: nobody on the list is banned
		if a.Host != "" {
			d.allowSources.addHost(a.Host)
		}
	}
	if err := d.pipeline.BeginRestoring(d.fw, stored, pbxs); err != nil {
		return fmt.Errorf("the kernel's firewall: %w", err)
	}
	d.allowSources.spareUntilResolved(d.started)
	begun, first := make(chan struct{}), true
	d.tableBuilt, d.allBuilt = begun, make(chan struct{})
	d.writer = firewall.NewWriter(d.fw, d.pipeline.DesiredChanges, firewall.WriterConfig{
		Log: d.log,
		Rebuilt: func(cause string) {
			if first { // the writer's own first look finds what was ensured above
				first = false
				close(begun)
				return
			}
			d.countRebuild(cause)
			d.lists.want()
		},
		Sample:  d.pipeline.SampleDesired,
		Sampled: d.kernel.noteSample,
	})
	d.pipeline.SetWriter(d.writer)
	d.restorer = pipeline.NewRestorer(d.pipeline, d.fw, d.opts.patience)
	d.closers = append(d.closers, d.restorer.Close)
	return d.restorer.Start()
}

// closePorts closes these ports to the banned, and no other.
func (d *Daemon) closePorts(udp, tcp []uint16) error {
	if err := d.writer.SetPorts(udp, tcp); err != nil {
		return err
	}
	return nil
}

// TableConfig is the kernel's table that a configuration asks for, in the namespace of a file descriptor, 0 for the
// process's own.
func TableConfig(cfg *config.Config, netns int) firewall.Config {
	f := cfg.Firewall
	c := firewall.Config{
		Table: f.Table, UDPPorts: f.Ports.UDP, TCPPorts: f.Ports.TCP, Priority: f.Priority, NetNS: netns,
		IPv6Prefix:   cfg.Policy.IPv6Prefix,
		MaxElements:  uint32(max(firewall.DefaultMaxElements, cfg.Policy.Limits.Bans)),
		ManagerPorts: managerPorts(cfg.Asterisk),
		Knock:        firewall.Knock{Port: cfg.Policy.Ban.Knock, Source: cfg.Policy.Ban.KnockSource},
		Meter: firewall.Meter{Enabled: f.Meter.Enabled, Rate: uint32(min(f.Meter.Rate, 1<<31)),
			Burst: f.Meter.Burst},
	}
	if f.Scope == config.ScopeAll {
		c.Scope = firewall.All
	}
	switch f.Owner {
	case config.OwnerOn:
		c.Owner = firewall.On
	case config.OwnerOff:
		c.Owner = firewall.Off
	}
	return c
}

// managerPorts are where Asterisk's manager interface listens: as it does by default (manager.conf: port, tlsbindaddr),
// and as the configuration says.
func managerPorts(pbxs []config.Asterisk) []uint16 {
	ports := []uint16{5038, 5039}
	for i := range pbxs {
		_, text, err := net.SplitHostPort(pbxs[i].Address)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseUint(text, 10, 16); err == nil && n > 0 && !slices.Contains(ports, uint16(n)) {
			ports = append(ports, uint16(n))
		}
	}
	return ports
}

func (d *Daemon) countRebuild(cause string) {
	d.metrics.CountRebuild(cause)
	d.kernel.mu.Lock()
	d.kernel.rebuilds[cause]++
	d.kernel.mu.Unlock()
}

// noteSample remembers how many of the bans that were looked for are in the kernel.
func (k *kernelState) noteSample(looked, found int) {
	k.mu.Lock()
	k.sampleSize, k.sampleFound, k.sampledAt = looked, found, time.Now()
	k.mu.Unlock()
}

// estimatePresent estimates how many of the desired bans are in the kernel, from the latest sample.
func (k *kernelState) estimatePresent(desired int) (n int, at time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.sampleSize == 0 {
		return desired, k.sampledAt
	}
	return desired * k.sampleFound / k.sampleSize, k.sampledAt
}

// droppedPackets returns the packets that were dropped, by set, asked of the kernel once a second at most.
func (k *kernelState) droppedPackets(fw firewall.Firewall) map[string]uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Since(k.droppedAt) >= time.Second {
		if dropped, err := fw.DroppedPackets(); err == nil {
			k.dropped = dropped
		}
		k.droppedAt = time.Now()
	}
	return k.dropped
}

// kernelHint is what to do about an error of the kernel's table.
func kernelHint(err error) string {
	return cmp.Or(hint.Of(err), "look at: nft list table inet ringwall")
}

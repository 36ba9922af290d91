package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/firewall"
	"github.com/ringwall/ringwall/pkg/hep"
	"github.com/ringwall/ringwall/pkg/nflog"
	"github.com/ringwall/ringwall/pkg/packet"
	"github.com/ringwall/ringwall/pkg/sip"
	"github.com/ringwall/ringwall/pkg/witness"
)

// tlsPorts are where Asterisk speaks TLS by default: nothing in it can be read, and res_hep tells it in clear.
var tlsPorts = []uint16{5061, 8089}

// openTap begins to read the packets that the kernel's table copies. It copies none before the group is ours: another
// program that has it would get what phones and Asterisk say to each other.
func (s *sensors) openTap() (opened, error) {
	cfg := s.daemon.config.currentConfig().Sensors
	_, isTable := s.daemon.fw.(*firewall.Table)
	if s.tap.absent.Store(nil); cfg.Tap == config.TapOff || !isTable || !s.hasAsterisk() {
		return opened{}, nil
	}
	reader, err := nflog.Open(nflog.Config{Group: uint16(cfg.TapGroup), NetNS: s.daemon.opts.NetNS})
	if err == nil {
		if err = s.copyPackets(firewall.Tap{Group: uint16(cfg.TapGroup), ExceptTCPPorts: tlsPorts}); err != nil {
			_ = reader.Close()
		}
	}
	switch {
	case err == nil:
	case cfg.Tap == config.TapAuto && (errors.Is(err, firewall.ErrUnsupported) || errors.Is(err, nflog.ErrUnsupported)):
		why := err.Error()
		s.tap.absent.Store(&why)
		s.daemon.log.Warn("there is no tap of packets: what Asterisk sends no event of is not seen", "err", err)
		return opened{}, nil
	default:
		return opened{}, err
	}
	end := func() error { return errors.Join(s.copyPackets(firewall.Tap{}), reader.Close()) }
	run := &sensorTask{name: "tap", close: reader.Close, run: func() error { return reader.Run(s.onTapped) }}
	return opened{[]Task{run}, s.tap.works(end, func() sensorCounts {
		c := reader.Stats()
		return sensorCounts{c.Packets, c.Lost + c.Overruns, c.LastHeard}
	})}, nil
}

// copyPackets has the kernel's table begin to copy packets, or end it.
func (s *sensors) copyPackets(tap firewall.Tap) error {
	ctx, cancel := context.WithTimeout(context.Background(), reloadPatience)
	defer cancel()
	return s.daemon.writer.SetTap(ctx, tap)
}

// works has a sensor counted as one that works, and returns what ends that.
func (one *sensor) works(closeIt func() error, counts func() sensorCounts) (end func() error) {
	one.counts.Store(&counts)
	return func() error {
		one.counts.Store(nil)
		return closeIt()
	}
}

// sensorTask reads until it is closed.
type sensorTask struct {
	name  string
	run   func() error
	close func() error
}

// String names the task.
func (t *sensorTask) String() string { return t.name }

// Run implements Task.
func (t *sensorTask) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = t.close() })()
	if err := t.run(); err != nil || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%s: nothing more to read", t.name)
}

// onTapped has one packet looked at.
func (s *sensors) onTapped(p *nflog.Packet) {
	toAsterisk := string(p.Prefix) == firewall.TapRequest
	if !toAsterisk && string(p.Prefix) != firewall.TapAnswer {
		return // of a rule that is not ours
	}
	var head packet.Packet
	if packet.Parse(p.Payload, &head) != nil {
		return
	}
	s.judgeFindings(s.collect(func(now time.Time, w *witness.Witness) { w.Packet(now, toAsterisk, &head) }))
	s.tap.lag.Store(int64(max(0, time.Since(p.Time))))
}

// openHEP begins to listen for Asterisk's copies of messages.
func (s *sensors) openHEP() (opened, error) {
	cfg := s.daemon.config.currentConfig().Sensors.HEP
	if cfg.Listen == "" {
		return opened{}, nil
	}
	c := hep.Config{Password: cfg.Password.Reveal()}
	var err error
	if c.Listen, err = netip.ParseAddrPort(cfg.Listen); err != nil {
		return opened{}, err
	}
	if cfg.Forward != "" {
		to, err := net.ResolveUDPAddr("udp", cfg.Forward)
		if err != nil {
			return opened{}, fmt.Errorf("sensors.hep.forward: %w", err)
		}
		c.Forward = to.AddrPort()
	}
	l, err := hep.Open(c)
	if err != nil {
		return opened{}, err
	}
	run := &sensorTask{name: "hep", close: l.Close, run: func() error { return l.Run(s.onCopied) }}
	return opened{[]Task{run}, s.hep.works(l.Close, func() sensorCounts {
		c := l.Stats()
		return sensorCounts{c.Received, c.Lost, c.LastHeard}
	})}, nil
}

// onCopied has the messages of one copy looked at.
func (s *sensors) onCopied(p *hep.Packet) {
	sight := s.sightOf(p)
	for text := range p.Messages() {
		var m sip.Message
		if sip.Parse(text, &m) != nil {
			continue
		}
		s.judgeFindings(s.collect(func(now time.Time, w *witness.Witness) { w.Message(now, sight, &m) }))
	}
	s.hep.lag.Store(int64(max(0, time.Since(p.Time))))
}

// sightOf says who spoke with whom in a copy: res_hep_pjsip names both ends, and not which of them is Asterisk's.
func (s *sensors) sightOf(p *hep.Packet) witness.Sight {
	udp := p.Protocol == unix.IPPROTO_UDP
	sight := witness.Sight{SeenBy: event.ByHEP, ToAsterisk: true, Asterisk: p.Destination, Remote: p.Source}
	if s.looksLikeAsterisk(p.Source, udp) > s.looksLikeAsterisk(p.Destination, udp) {
		sight.ToAsterisk, sight.Asterisk, sight.Remote = false, p.Source, p.Destination
	}
	sight.Transport = transportAt(sight.Asterisk.Port(), udp)
	return sight
}

// looksLikeAsterisk says how much speaks for an end being Asterisk's: that this machine has its address, and that the
// port is one of those that are closed to the banned. A phone may have the same port.
func (s *sensors) looksLikeAsterisk(end netip.AddrPort, udp bool) (signs int) {
	if s.daemon.allowSources.isOwn(end.Addr()) {
		signs += 2
	}
	closed, tcp := s.daemon.ports.portsToClose()
	if !udp {
		closed = tcp
	}
	if slices.Contains(closed, end.Port()) {
		signs++
	}
	return signs
}

// transportAt is what Asterisk speaks at a port by default: copies of messages tell no more than whether it is UDP.
func transportAt(port uint16, udp bool) event.Transport {
	switch {
	case udp:
		return event.UDP
	case port == 5061:
		return event.TLS
	case port == 8088:
		return event.WS
	case port == 8089:
		return event.WSS
	}
	return event.TCP
}

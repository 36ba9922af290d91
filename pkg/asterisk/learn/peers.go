package learn

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	"github.com/ringwall/ringwall/pkg/asterisk/ami"
	"github.com/ringwall/ringwall/pkg/printable"
)

// channelPeers are the peers of one channel driver, chan_iax2 or chan_sip.
type channelPeers struct {
	configured []configured        // with a fixed address
	contacts   []registeredAddress // of those that register
}

// A registeredAddress is where a peer is registered.
type registeredAddress struct {
	endpoint string
	addr     netip.Addr
}

// askPeers reads the peers of the older channel drivers.
func (l *Learner) askPeers(ctx context.Context) error {
	for _, q := range []struct{ action, channel, kind string }{{"IAXpeers", "IAX2", "IAX"},
		{"SIPpeers", "SIP", "SIP"}} {
		reply, err := l.askAction(ctx, q.action)
		if errors.Is(err, errRefused) {
			continue
		}
		if errors.Is(err, errRoundOver) {
			return err
		}
		if err != nil {
			continue
		}
		items := reply.Events
		if len(items) == 0 {
			items = untaggedEvents(reply, "PeerEntry")
		}
		if reply.Response != nil && !isComplete(reply, len(items)) {
			l.addFailure(q.action, errors.New("learn: the list does not have as many items as its end says; it is "+
				"asked again later"))
			continue
		}
		var p channelPeers
		for _, m := range items {
			p.addPeer(m, q.channel, q.kind)
		}
		l.peers[q.action] = p
	}
	return nil
}

// untaggedEvents returns the items that carry no ActionID (chan_iax2.c, manager_iax2_show_peers()).
func untaggedEvents(reply *ami.Reply, event string) []*ami.Message {
	var out []*ami.Message
	for _, text := range reply.Untagged {
		if m, err := ami.ParseMessage(text); err == nil && isEvent(m, event) {
			out = append(out, m)
		}
	}
	return out
}

func (p *channelPeers) addPeer(m *ami.Message, channel, kind string) {
	name, ok1 := onlyValue(m, "ObjectName")
	ip, ok2 := onlyValue(m, "IPaddress")
	dynamic, ok3 := onlyValue(m, "Dynamic")
	driver, ok4 := onlyValue(m, "Channeltype")
	if !isEvent(m, "PeerEntry") || !ok1 || !ok2 || !ok3 || !ok4 || driver != channel || name == "" ||
		len(name) > maxName {
		return
	}
	// chan_iax2 writes name/username.
	name, _, _ = strings.Cut(name, "/")
	addr, ok := parseAddr(ip)
	if !ok {
		return // "-none-", "(null)"
	}
	switch {
	case strings.EqualFold(dynamic, "no") && len(p.configured) < maxServers:
		f := configured{origin: "trunk " + printable.String(name) + " (" + kind + " peer)"}
		f.addTarget("address", target{addr: addr}, true)
		p.configured = append(p.configured, f)
	case strings.EqualFold(dynamic, "yes") && len(p.contacts) < maxContacts:
		p.contacts = append(p.contacts, registeredAddress{endpoint: name, addr: addr})
	}
}

package learn

import (
	"context"
	"errors"

	"github.com/ringwall/ringwall/pkg/printable"
)

const maxServers = 10_000

// askRegistrations reads where Asterisk registers itself. AuthDetail, which holds the password, is passed over.
func (l *Learner) askRegistrations(ctx context.Context) error {
	reply, err := l.askAction(ctx, "PJSIPShowRegistrationsOutbound")
	if errors.Is(err, errRefused) {
		return nil
	}
	if err != nil {
		return err
	}
	var servers []configured
	for _, m := range reply.Events {
		if !isEvent(m, "OutboundRegistrationDetail") || len(servers) >= maxServers {
			continue
		}
		name, ok1 := onlyValue(m, "ObjectName")
		server, ok2 := onlyValue(m, "ServerUri")
		proxy, ok3 := onlyValue(m, "OutboundProxy")
		if !ok1 || !ok2 || name == "" || len(name) > maxName {
			continue
		}
		f := configured{origin: "registration " + printable.String(name)}
		t, ok := parseURI(server)
		f.addTarget("server", t, ok)
		if ok3 && proxy != "" {
			t, ok := parseURI(proxy)
			f.addTarget("outbound proxy", t, ok)
		}
		servers = append(servers, f)
	}
	l.servers = servers
	return nil
}

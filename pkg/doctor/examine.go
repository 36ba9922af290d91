package doctor

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
	"github.com/ringwall/ringwall/pkg/config"
)

// Options say what to examine. The zero value of what is not explained means the default.
type Options struct {
	ConfigPath string             // the file
	Env        config.Environment // of this process: secrets, SSH_CONNECTION
	Service    string             // the user that the daemon runs as, where this is root
	ServiceEnv config.Environment // what that user can read
	Socket     string             // of the daemon, instead of control.socket
	Report     func(Check)        // gets each check as soon as it is made, from Examine's goroutine; nil: none
	NetNS      int                // descriptor of the network namespace of the table; 0: that of this process

	// Wait bounds each wait for an event that should come: 5 s. Connecting may take as long.
	Wait time.Duration
}

// exam is one examination under way.
type exam struct {
	Options
	list []Check

	cfg    *config.Config
	loaded bool // cfg is the file's; else the defaults
	daemon *api.Status
	client *api.Client
	own    map[netip.Prefix]string // this machine's addresses, with a word why

	manager string // manager.conf, where it is not Asterisk's usual one
	proc    string // the proc file system

	lookUp func(ctx context.Context, network, host string) ([]netip.Addr, error) // nil: as the system does
}

// addresses resolves a host name, within the time that a check may take.
func (e *exam) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	limited, cancel := context.WithTimeout(ctx, e.Wait)
	defer cancel()
	if e.lookUp != nil {
		return e.lookUp(limited, "ip", host)
	}
	return net.DefaultResolver.LookupNetIP(limited, "ip", host)
}

// Examine makes every check and returns them in order. It takes some seconds, and ends early with ctx. It changes
// nothing that lasts: it logs in to each Asterisk twice and leaves, and puts one documentation address (RFC 5737, RFC
// 3849) into the kernel's set and takes it out again.
func Examine(ctx context.Context, o Options) []Check {
	if o.Wait <= 0 {
		o.Wait = 5 * time.Second
	}
	e := &exam{Options: o, manager: "/etc/asterisk/manager.conf", proc: "/proc"}
	for _, part := range []func(context.Context){
		e.configuration, e.running, e.machine, e.asterisks, e.kernel, e.ports, e.places, e.clock, e.lockout,
		e.judgement, e.registered,
	} {
		if ctx.Err() != nil {
			break
		}
		part(ctx)
	}
	if ctx.Err() != nil {
		e.on("").fail("examination", "run it again, and let it finish", "ended early: %s", text(context.Cause(ctx)))
	}
	return e.list
}

func (e *exam) on(about string) subject { return subject{e, about} }

// lookup asks the environment.
func (e *exam) lookup(name string) string {
	if e.Env.Lookup == nil {
		return ""
	}
	v, _ := e.Env.Lookup(name)
	return v
}

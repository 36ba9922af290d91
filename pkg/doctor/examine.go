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
	// BeforeStart is for who looks before the daemon is started: that none runs is no fault.
	BeforeStart bool
	NetNS       int // descriptor of the network namespace of the table; 0: that of this process

	// Wait bounds each wait for an event that should come: 5 s. Connecting may take as long.
	Wait time.Duration
}

// exam is one examination under way. Later checks use what earlier ones found out.
type exam struct {
	Options
	checks []Check // so far

	cfg          *config.Config // the file's where configLoaded, else the defaults
	configLoaded bool
	daemon       *api.Status             // of the daemon that answered; nil: none did
	client       *api.Client             // asks the daemon; nil until examineDaemon
	ownPrefixes  map[netip.Prefix]string // this machine's addresses and gateways, each with what it is

	managerConf string // path of manager.conf
	procFolder  string // path of the proc file system

	lookupHost func(ctx context.Context, network, host string) ([]netip.Addr, error) // nil: as the system does
}

// resolveHost resolves a host name, within the time that a check may take.
func (e *exam) resolveHost(ctx context.Context, host string) ([]netip.Addr, error) {
	limited, cancel := context.WithTimeout(ctx, e.Wait)
	defer cancel()
	if e.lookupHost != nil {
		return e.lookupHost(limited, "ip", host)
	}
	return net.DefaultResolver.LookupNetIP(limited, "ip", host)
}

// Examine makes every check and returns them in order. It takes some seconds, and ends early with ctx. It changes
// nothing that lasts: it logs in to each Asterisk twice and leaves, and puts one documentation address (RFC 5737, RFC
// 3849) into the kernel's set and takes it out again. To a fleet it says that it trusts one no more, which nobody does.
func Examine(ctx context.Context, o Options) []Check {
	if o.Wait <= 0 {
		o.Wait = 5 * time.Second
	}
	e := &exam{Options: o, managerConf: "/etc/asterisk/manager.conf", procFolder: "/proc"}
	for _, part := range []func(context.Context){
		e.examineConfiguration, e.examineDaemon, e.listOwnPrefixes, e.examineAsterisks, e.examineKernel, e.examinePorts,
		e.examineSensors,
		e.examineFolders, e.examineClock, e.examineLockout,
		e.examinePolicy, e.examineGeoFiles, e.examineLists, e.examineFleet, e.examineCrowdSec,
	} {
		if ctx.Err() != nil {
			break
		}
		part(ctx)
	}
	if ctx.Err() != nil {
		e.subjectNamed("").fail("examination", "run it again, and let it finish", "ended early: %s",
			errorLine(context.Cause(ctx)))
	}
	return e.checks
}

// subjectNamed is one Asterisk, by its name, or with "" the machine and its daemon.
func (e *exam) subjectNamed(about string) subject { return subject{e, about} }

// envVariable is the value of an environment variable of this process, or "".
func (e *exam) envVariable(name string) string {
	if e.Env.Lookup == nil {
		return ""
	}
	v, _ := e.Env.Lookup(name)
	return v
}

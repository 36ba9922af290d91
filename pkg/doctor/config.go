package doctor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/ringwall/ringwall/pkg/config"
	"github.com/ringwall/ringwall/pkg/humanize"
	"github.com/ringwall/ringwall/pkg/printable"
)

// examineConfiguration loads the file as the daemon would, and names every mistake.
func (e *exam) examineConfiguration(context.Context) {
	s := e.subjectNamed("")
	cfg, warnings, err := config.Load(e.ConfigPath, e.Env)
	if e.configLoaded = err == nil; e.configLoaded {
		e.cfg = cfg
		s.ok("configuration", "%s: %s, policy %s", e.ConfigPath,
			humanize.Plural(len(cfg.Asterisk), "Asterisk", "Asterisks"), cfg.Policy.Mode)
	} else {
		standard := config.Default()
		e.cfg = &standard
	}
	if errs, ok := errors.AsType[config.Errors](err); ok {
		for _, m := range errs {
			s.fail("configuration", m.Try, "%s", mistakeLine(m.File, m.Line, m.Key, m.What, m.Value, m.Allowed))
		}
	} else if err != nil {
		s.fail("configuration", "", "%s", errorLine(err))
	}
	e.proveReadableByService(s)
	for _, w := range warnings {
		s.warn("configuration", w.Try, "%s", mistakeLine(w.File, w.Line, w.Key, w.What, w.Value, ""))
	}
	if e.Socket != "" {
		e.cfg.Control.Socket = e.Socket
	}
}

// proveReadableByService names what root can read and the daemon's user cannot: the next reload fails for it, and so
// does the next start.
func (e *exam) proveReadableByService(s subject) {
	if e.Service == "" || !e.configLoaded {
		return
	}
	_, _, err := config.Load(e.ConfigPath, e.ServiceEnv)
	errs, ok := errors.AsType[config.Errors](err)
	switch {
	case ok:
		for _, m := range errs {
			s.fail("readable", m.Try, "%s", mistakeLine(m.File, m.Line, m.Key, m.What, m.Value, m.Allowed))
		}
	case err != nil:
		s.fail("readable", "", "%s", errorLine(err))
	default:
		s.ok("readable", "the service's user %s can read all that the configuration needs", e.Service)
	}
}

func mistakeLine(file string, line int, key, what, value, allowed string) string {
	var b strings.Builder
	b.WriteString(printable.Line(file))
	if line > 0 {
		fmt.Fprintf(&b, ":%d", line)
	}
	for _, part := range []string{key, what, value} {
		if part != "" {
			b.WriteString(": " + part)
		}
	}
	if allowed != "" {
		b.WriteString("; allowed: " + allowed)
	}
	return b.String()
}

// examinePolicy names what the policy leaves undone: mode observe, services that are only observed, no honeypots, host
// names of the allow list that cannot be resolved.
func (e *exam) examinePolicy(ctx context.Context) {
	if !e.configLoaded {
		return
	}
	s, p := e.subjectNamed(""), e.cfg.Policy
	if p.Mode == config.Observe {
		s.warn("mode", "after a day of looking at ringwall history: policy.mode: enforce, then systemctl reload "+
			"ringwall",
			"observe: nothing is banned yet, what would be is only reported")
	} else {
		s.ok("mode", "enforce: attackers are banned")
	}
	if len(e.cfg.Asterisk) > 0 { // else the fleet alone says who is an attacker
		e.examineServices(s)
	}
	switch {
	case len(e.cfg.Asterisk) == 0:
	case len(p.Honeypots) == 0:
		s.skip("honeypots", "policy.honeypots: [admin, test, guest]",
			"none: names that no phone of yours has would ban a scanner at its first try")
	default:
		s.ok("honeypots", "%s", humanize.Plural(len(p.Honeypots), "account name bans at once",
			"account names ban at once"))
	}
	if p.Trust.Match == nil && e.hasWazo() {
		s.warn("trust", `policy.trust: {match: "^[a-z0-9]{8}$"}`,
			"Wazo is on this machine, and a login of any account earns trust: lines there have names of eight "+
				"letters and digits, and only these should")
	}
	for _, a := range p.Allow {
		if a.Host == "" {
			continue
		}
		addrs, err := e.resolveHost(ctx, a.Host)
		if err != nil {
			s.warn("allow", "mend the name in policy.allow, or DNS (/etc/resolv.conf)",
				"%s cannot be resolved, so it protects nobody now: %s",
				printable.String(a.Host), errorLine(err))
			continue
		}
		s.ok("allow", "%s stands for %s", printable.String(a.Host), humanize.Plural(len(addrs), "address", "addresses"))
	}
}

// examineServices names the services of Asterisk whose attackers are only observed. SIP (chan_sip) is by default, so
// that is no warning.
func (e *exam) examineServices(s subject) {
	var enforced []string
	for _, name := range slices.Sorted(maps.Keys(e.cfg.Policy.Services)) {
		switch {
		case e.cfg.Policy.Services[name] != config.Observe:
			enforced = append(enforced, name)
		case name == "SIP":
			s.ok("services", "SIP (chan_sip) is observed only: it reports whatever address the attacker writes into "+
				"Via; use PJSIP")
		default:
			s.warn("services", fmt.Sprintf("policy.services: {%s: enforce}", name),
				"%s is observed only: its attackers are not banned", name)
		}
	}
	if len(enforced) == 0 {
		s.warn("services", "policy.services: {PJSIP: enforce, AMI: enforce}", "nobody is banned for anything")
		return
	}
	s.ok("services", "%s: attackers are judged", strings.Join(enforced, ", "))
}

// hasWazo recognises the machine by the folders of Wazo's daemons.
func (e *exam) hasWazo() bool {
	for _, dir := range []string{"/etc/wazo-confd", "/etc/wazo-auth", "/etc/wazo-calld"} {
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return true
		}
	}
	return false
}

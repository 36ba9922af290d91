package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/nftables"

	"github.com/ringwall/ringwall/pkg/netns"
)

const (
	f2bTrials  = 20
	f2bEvents  = 3000
	f2bSources = 600
)

// fail2banJail is fail2ban in a namespace of its own, with its own asterisk filter and nftables action.
type fail2banJail struct {
	space  *netns.Space
	server *netns.Process
	log    *os.File
}

// newJail starts fail2ban with the files of its package; who fails maxRetry times is banned.
func newJail(ctx context.Context, o *options, s *netns.Space, maxRetry int) (*fail2banJail, error) {
	dir, err := os.MkdirTemp(o.dir, "fail2ban-")
	if err != nil {
		return nil, err
	}
	etc := filepath.Join(dir, "etc")
	if err := os.CopyFS(etc, os.DirFS(filepath.Join(o.fail2ban, "/etc/fail2ban"))); err != nil {
		return nil, fmt.Errorf("fail2ban's configuration: %w; install it, or name its folder with -fail2ban", err)
	}
	for _, f := range []string{"jail.d/defaults-debian.conf"} {
		_ = os.Remove(filepath.Join(etc, f)) // it guards SSH
	}
	j := &fail2banJail{space: s}
	if j.log, err = os.Create(filepath.Join(dir, "security")); err != nil {
		return nil, err
	}
	text := fmt.Sprintf("[DEFAULT]\nbantime = 1h\nfindtime = 10m\nallowipv6 = no\n[asterisk]\nenabled = true\nport = "+
		"5060,5061\n"+
		"protocol = udp,tcp\nbanaction = nftables-multiport\nmaxretry = %d\nlogpath = %s\n"+
		"action = nftables-multiport[name=asterisk, port=\"5060,5061\", protocol=\"udp,tcp\"]\n", maxRetry,
		j.log.Name())
	local := fmt.Sprintf("[Definition]\ndbfile = %s\nlogtarget = %s\nallowipv6 = no\n", filepath.Join(dir, "db"),
		filepath.Join(dir, "log"))
	err = errors.Join(os.WriteFile(filepath.Join(etc, "jail.local"), []byte(text), 0o600),
		os.WriteFile(filepath.Join(etc, "fail2ban.local"), []byte(local), 0o600))
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "python3", filepath.Join(o.fail2ban, "/usr/bin/fail2ban-server"), "-f", "-c", etc,
		"-s", filepath.Join(dir, "sock"), "-p", filepath.Join(dir, "pid"), "start")
	cmd.Env = append(os.Environ(), "PYTHONPATH="+filepath.Join(o.fail2ban, "/usr/lib/python3/dist-packages"))
	if j.server, err = s.Start(cmd); err != nil {
		return nil, err
	}
	err = waitUntil(ctx, "fail2ban watches the log", func() bool {
		b, _ := os.ReadFile(filepath.Join(dir, "log"))
		return strings.Contains(string(b), "Jail 'asterisk' started")
	})
	if err != nil {
		b, _ := os.ReadFile(filepath.Join(dir, "log"))
		j.close()
		return nil, fmt.Errorf("%w; its log:\n%s", err, b)
	}
	return j, nil
}

func (j *fail2banJail) close() {
	j.server.Stop(10 * time.Second)
	_ = j.log.Close()
}

// securityLogLine is the event that appendEvent writes, as Asterisk's security log has it.
func securityLogLine(at time.Time, from netip.Addr, call int) string {
	return fmt.Sprintf("[%s] SECURITY[23417] res_security_log.c: "+
		"SecurityEvent=\"InvalidAccountID\",EventTV=\"%s\",Severity=\"Error\","+
		"Service=\"PJSIP\",EventVersion=\"1\",AccountID=\"9999\",SessionID=\"5f1a9c3e-%d\","+
		"LocalAddress=\"IPV4/UDP/192.0.2.1/5060\","+
		"RemoteAddress=\"IPV4/UDP/%s/5060\"\n", at.Local().Format("2006-01-02 15:04:05.000"),
		at.UTC().Format("2006-01-02T15:04:05.000-0700"), call, from)
}

// countBanned counts the elements of fail2ban's set.
func (j *fail2banJail) countBanned() (int, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(j.space.FD()))
	if err != nil {
		return 0, err
	}
	elems, err := conn.GetSetElements(&nftables.Set{Table: &nftables.Table{Family: nftables.TableFamilyINet,
		Name: "f2b-table"},
		Name: "addr-set-asterisk"})
	return len(elems), err
}

func measureFail2ban(ctx context.Context, o *options) error {
	if err := measureFail2banReaction(ctx, o); err != nil {
		return err
	}
	return measureFail2banFlood(ctx, o)
}

func measureFail2banReaction(ctx context.Context, o *options) error {
	inside, err := netns.New()
	if err != nil {
		return err
	}
	defer func() { _ = inside.Close() }()
	outside, err := netns.New()
	if err != nil {
		return err
	}
	defer func() { _ = outside.Close() }()
	if err := connectSpaces(inside, outside); err != nil {
		return err
	}
	if err := addAttackers(outside, f2bTrials); err != nil {
		return err
	}
	j, err := newJail(ctx, o, inside, 1)
	if err != nil {
		return err
	}
	defer j.close()
	var took []time.Duration
	for i := range f2bTrials {
		p, err := newProbe(outside, inside, attackerAddress(i), target)
		if err != nil {
			return err
		}
		if err := p.warmUp(); err != nil {
			return err
		}
		began := time.Now()
		if _, err := j.log.WriteString(securityLogLine(began, attackerAddress(i), i)); err != nil {
			return err
		}
		at, err := p.awaitDrop(patience, 100*time.Microsecond)
		p.close()
		if err != nil {
			return err
		}
		took = append(took, at.Sub(began))
		time.Sleep(100 * time.Millisecond)
	}
	printQuantiles("line in the log to the first dropped packet", took)
	return nil
}

func measureFail2banFlood(ctx context.Context, o *options) error {
	s, err := netns.New()
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	j, err := newJail(ctx, o, s, 3)
	if err != nil {
		return err
	}
	defer j.close()
	before, err := cpuTimeWithChildren(j.server.Cmd.Process.Pid)
	if err != nil {
		return err
	}
	began, calls := time.Now(), 0
	var b strings.Builder
	visitInOrder(f2bEvents, f2bSources, func(n int) {
		calls++
		b.WriteString(securityLogLine(began, nthAddress(n), calls))
	})
	if _, err := j.log.WriteString(b.String()); err != nil {
		return err
	}
	err = waitUntil(ctx, "all are banned", func() bool {
		time.Sleep(50 * time.Millisecond)
		n, err := j.countBanned()
		return err == nil && n == f2bSources
	})
	if err != nil {
		return err
	}
	took := time.Since(began)
	after, err := cpuTimeWithChildren(j.server.Cmd.Process.Pid)
	if err != nil {
		return err
	}
	fmt.Printf("  %d events of %d sources: %.0f events/s, %.0f bans/s, CPU an event %.0f µs\n", f2bEvents, f2bSources,
		f2bEvents/took.Seconds(), f2bSources/took.Seconds(), (after-before).Seconds()*1e6/f2bEvents)
	return nil
}

package doctor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/ami/amiserver"
	"github.com/ringwall/ringwall/pkg/config"
)

func TestEachLinkOfASession(t *testing.T) {
	user := amiserver.User{Name: "ringwall", Secret: secret, Read: amiserver.ClassSecurity}
	with := func(change func(*amiserver.User)) func(*testing.T) string {
		u := user
		change(&u)
		return func(t *testing.T) string { return serve(t, u) }
	}
	for name, row := range map[string]struct {
		address func(*testing.T) string
		want    string // name=result of the links, in order
		link    string // that says
		says    []string
	}{
		"good": {
			with(func(*amiserver.User) {}), "reach=ok greeting=ok login=ok security=ok events=ok lag=ok learning=skip",
			"events", []string{"it came"},
		},
		"denied questions": {
			with(func(*amiserver.User) {}), "reach=ok greeting=ok login=ok security=ok events=ok lag=ok learning=skip",
			"learning", []string{"DBGetTree", "write = system,reporting", "manager reload"},
		},
		"one login at a time": {
			with(func(u *amiserver.User) { u.Single = true }),
			"reach=ok greeting=ok login=ok security=ok events=ok learning=skip", "events", []string{"only once"},
		},
		"wrong secret": {
			with(func(u *amiserver.User) { u.Secret = "another" }),
			"reach=ok greeting=ok login=fail security=skip events=skip learning=skip",
			"login", []string{"[ringwall]", "manager reload"},
		},
		"unknown user": {
			with(func(u *amiserver.User) { u.Name = "somebody" }),
			"reach=ok greeting=ok login=fail security=skip events=skip learning=skip",
			"login", []string{"[ringwall]"},
		},
		"not from here": {
			with(func(u *amiserver.User) { u.Allow = []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")} }),
			"reach=ok greeting=ok login=fail security=skip events=skip learning=skip", "login", []string{"permit ="},
		},
		"no read=security": {
			with(func(u *amiserver.User) { u.Read = amiserver.ClassCall }),
			"reach=ok greeting=ok login=ok security=fail events=skip learning=skip",
			"security", []string{"read = security", "manager reload"},
		},
		"nobody there": {closed, "reach=fail greeting=skip login=skip security=skip events=skip learning=skip", "reach",
			[]string{"refused", "bindaddr"}},
		"not an AMI": {
			speaker("SSH-2.0-OpenSSH_9.9\x1b[31m\r\n"),
			"reach=ok greeting=fail login=skip security=skip events=skip learning=skip",
			"greeting", []string{"not an Asterisk Manager Interface", `\x1b[31m`, "check the address and the port"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := file(t, row.address(t), "")
			cfg, _, err := config.Load(path, config.Environment{})
			if err != nil {
				t.Fatal(err)
			}
			e := &exam{Options: Options{Wait: time.Minute}, cfg: cfg, configLoaded: true}
			if name == "no read=security" { // what it waits for never comes
				e.Wait = 5 * time.Second
			}
			e.examineSession(t.Context(), e.subjectNamed("pbx1"), cfg.Asterisk[0])
			var got []string
			for _, c := range e.checks {
				got = append(got, fmt.Sprintf("%s=%s", c.Name, c.Result))
				if c.About != "pbx1" {
					t.Errorf("%+v is about nobody", c)
				}
				if strings.Contains(c.Detail+c.Fix, secret) || strings.ContainsRune(c.Detail+c.Fix, 0x1b) {
					t.Errorf("a secret or a raw byte in %q", c)
				}
			}
			if strings.Join(got, " ") != row.want {
				t.Errorf("got  %s\nwant %s", strings.Join(got, " "), row.want)
			}
			is(t, one(t, e.checks, row.link), one(t, e.checks, row.link).Result, row.says...)
		})
	}
}

// closed is an address where nobody listens; one of its own, so that nobody takes the port meanwhile.
func closed(t *testing.T) string {
	l, err := net.Listen("tcp", "127.83.12.10:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// speaker greets with a line that is not Asterisk's.
func speaker(line string) func(*testing.T) string {
	return func(t *testing.T) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte(line))
				_ = c.Close()
			}
		}()
		t.Cleanup(func() { _ = l.Close(); <-done })
		return l.Addr().String()
	}
}

func TestAnExaminationEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never greets
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	o := Options{ConfigPath: file(t, silent.Addr().String(), ""), Wait: time.Hour, Report: func(c Check) {
		if c.Name == "daemon" { // the last check before Asterisk
			cancel(fmt.Errorf("enough"))
		}
	}}
	list := Examine(ctx, o)
	if Passed(list) || of(list, checkElement) != nil {
		t.Errorf("%+v", list)
	}
	is(t, one(t, list, "examination"), Fail, "enough")
}

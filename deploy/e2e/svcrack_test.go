package e2e

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/ringwall/ringwall/deploy/lab"
	"github.com/ringwall/ringwall/deploy/trial"
	"github.com/ringwall/ringwall/pkg/asterisk/event"
	"github.com/ringwall/ringwall/pkg/ban"
)

// svcrack with a numeric list of passwords, as fast as its socket takes them, has few of them judged: those that the
// meter lets through until the ban, and no more.
func TestSvcrackAtFullSpeed(t *testing.T) {
	l := lab.Start(t, lab.Options{Version: 22, Edit: addAccounts})
	session := l.DialAMI(t, lab.Ringwall)
	r := newRigOn(t, l, lab.Ringwall, "")
	r.untilSensing("tap")
	for i, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			addr := ip4(240+i, 1)
			r.AddAddr(t, lab.Attacker, addr)
			a := &assailant{r: r, ctx: t.Context(), addr: addr, account: fmt.Sprint(firstAccount + 380 + i),
				Agent: r.Agent(t, lab.Attacker, lab.AgentOptions{Transport: transport, Local: addr})}
			conn, err := a.dial(transport, 5060)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			const passwords = 20_000
			list := a.numericList(t, conn, passwords)
			told := func() (n int) {
				for _, f := range session.DrainFrames() {
					var ev event.Event
					if event.Decode(string(f), &ev) == nil && ev.Type == event.ChallengeResponseFailed &&
						ev.Remote.AddrPort.Addr() == addr {
						n++
					}
				}
				return n
			}
			told() // what came before

			begin := time.Now()
			sent := make(chan int, 1)
			go func() { sent <- writeAll(conn, list) }()
			go drain(conn)
			b := r.untilBanned(addr)
			took := time.Since(begin)
			// Behind the ban, nothing comes to a bound socket but what was in it.
			_ = conn.SetDeadline(time.Now().Add(time.Second))
			tried := <-sent
			judged := 0
			for more := 1; more > 0; {
				time.Sleep(time.Second)
				more = told()
				judged += more
			}
			t.Logf("figure: svcrack over %s: %d of %d passwords were sent, %d judged; the ban was seen after %v", transport,
				tried, passwords, judged, took.Round(time.Millisecond))
			if b.Reason != ban.ReasonWrongPassword || judged == 0 {
				t.Errorf("%d judged, %+v", judged, b)
			}
			// What firewall.meter lets through: 100 at once, over TCP by their bytes, and 200 a second.
			if most := 150 + int(200*took.Seconds()); judged > most {
				t.Errorf("%d guesses were judged, allowed are %d", judged, most)
			}
		})
	}
	r.wantNoLeak()
	r.stopDaemon()
}

// numericList gets a challenge, and answers it with the passwords 0, 1, 2 and so on.
func (a *assailant) numericList(t *testing.T, conn net.Conn, passwords int) [][]byte {
	t.Helper()
	local := netip.MustParseAddrPort(conn.LocalAddr().String())
	r := a.request("REGISTER", "svcrack-"+a.account, 0)
	ask := r
	ask.CSeq -= askedBefore
	b := make([]byte, 4096)
	for end := time.Now().Add(trial.Patience); a.challenge == nil; {
		if _, err := conn.Write(ask.Bytes(a.Transport(), local, a.Server())); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(answerTime))
		n, err := conn.Read(b)
		if err == nil && bytes.HasPrefix(b[:n], []byte("SIP/2.0 401")) {
			a.challenge = (&lab.Response{Code: 401, Raw: b[:n]}).Challenge()
		}
		if time.Now().After(end) {
			t.Fatal("no challenge: ", err)
		}
	}
	_ = conn.SetReadDeadline(time.Time{})
	list := make([][]byte, passwords)
	for i := range list {
		r.CSeq++
		r.Branch = fmt.Sprintf("z9hG4bK-%s-%d", a.account, i)
		r.Credentials = a.answerTo(r, fmt.Sprint(i))
		list[i] = r.Bytes(a.Transport(), local, a.Server())
	}
	return list
}

// writeAll returns how many messages the socket took.
func writeAll(conn net.Conn, list [][]byte) (n int) {
	for _, b := range list {
		if _, err := conn.Write(b); err != nil {
			return n
		}
		n++
	}
	return n
}

func drain(conn net.Conn) {
	for b := make([]byte, 1<<16); ; {
		if _, err := conn.Read(b); err != nil {
			return
		}
	}
}

package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"
)

const (
	answerWait = 500 * time.Millisecond // T1 of RFC 3261 section 17.1.1.1
	maxTries   = 5
)

// errNoAnswer is what a phone that was locked out would say.
var errNoAnswer = errors.New("no answer from the PBX")

// phone is a socket that registers.
type phone struct {
	phoneAccount
	tally  *tally
	row    *participantRow
	conn   net.Conn
	callID string
	via    string
	nonce  string // of the last challenge; a right password may use it again
}

func newPhone(s *testNetwork, l *tally, r *participantRow, src netip.Addr, ln phoneAccount) (*phone, error) {
	conn, err := s.dialSIP(src)
	if err != nil {
		return nil, err
	}
	port := conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	return &phone{
		phoneAccount: ln, tally: l, row: r, conn: conn, via: netip.AddrPortFrom(src, port).String(),
		callID: newCallID(src, ln.account),
	}, nil
}

// newCallID makes a Call-ID that was not used before.
func newCallID(src netip.Addr, what string) string {
	return fmt.Sprintf("%s-%d@%s", what, time.Now().UnixNano(), src)
}

// register does what a phone does: a request, and once more with credentials where the PBX asks for them, which
// may be wrong. The error is errNoAnswer, the end of ctx, or the socket's.
func (p *phone) register(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = p.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	challenged := false
	for range maxTries {
		r := request{user: p.account, callID: p.callID}
		if p.nonce != "" {
			r.auth = &credentials{p.account, p.nonce, digestResponse(p.account, p.password, p.nonce)}
		}
		a, err := p.exchange(ctx, r)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, errNoAnswer):
		case err != nil:
			return err
		case a.status == 200:
			return nil
		case challenged:
			p.nonce, p.callID = "", newCallID(p.row.sources[0], p.account)
			return nil
		default:
			p.nonce, challenged = a.nonce, true
		}
	}
	return fmt.Errorf("%s: phone %s: %w", p.row.name, p.account, errNoAnswer)
}

// exchange sends a request and waits for its answer.
func (p *phone) exchange(ctx context.Context, r request) (a sipAnswer, err error) {
	r.seq = p.tally.countSent(p.row)
	if _, err := p.conn.Write(r.packet(p.via)); err != nil {
		return a, fmt.Errorf("demo: %s sends: %w", p.row.name, err)
	}
	_ = p.conn.SetReadDeadline(time.Now().Add(answerWait))
	buf := make([]byte, maxPacket)
	for ctx.Err() == nil {
		n, err := p.conn.Read(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return a, errNoAnswer
		case err != nil:
			return a, fmt.Errorf("demo: %s reads: %w", p.row.name, err)
		}
		if a, ok := parseAnswer(buf[:n]); ok && a.seq == r.seq {
			return a, nil
		}
	}
	return a, ctx.Err()
}

// keepRegistering registers again and again until ctx ends.
func (p *phone) keepRegistering(ctx context.Context) error {
	for sleepFor(ctx, p.every) {
		if err := p.register(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, errNoAnswer) {
			return err
		}
	}
	return nil
}

// sleepFor waits, and reports whether ctx has not ended before.
func sleepFor(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

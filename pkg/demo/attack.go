package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// dialWait is how long an attacker waits for a TCP connection: less than the kernel's second try (RFC 6298: 1 s), so
// that each one is one packet.
const dialWait = 300 * time.Millisecond

// runAttacker sends what an attacker sends, at its pace, until ctx ends: attackers do not notice that they are banned.
func runAttacker(ctx context.Context, s *testNetwork, l *tally, r *participantRow) error {
	if r.attack == guessManager {
		return guessAMIPasswords(ctx, s, l, r)
	}
	var phones []*phone
	defer func() {
		for _, p := range phones {
			_ = p.conn.Close()
		}
	}()
	for _, src := range r.sources {
		p, err := newPhone(s, l, r, src, phoneAccount{})
		if err != nil {
			return err
		}
		phones = append(phones, p)
	}
	if r.attack == guessPassword {
		return guessPasswords(ctx, phones[0])
	}
	for n := 0; ; n++ {
		p := phones[n%len(phones)]
		user := strconv.Itoa(1000 + n)
		switch r.attack {
		case enumerateAccounts:
			user = strconv.Itoa(199 + n%800)
		case injectLines:
			user = injectedUser
		}
		if err := p.sendOnly(request{user: user, callID: newCallID(r.sources[0], strconv.Itoa(n))}); err != nil {
			return err
		}
		if r.attack == injectLines || !sleepFor(ctx, r.pause) {
			return nil
		}
	}
}

// sendOnly sends without waiting for the answer.
func (p *phone) sendOnly(r request) error {
	r.seq = p.tally.countSent(p.row)
	if _, err := p.conn.Write(r.packet(p.via)); err != nil {
		return fmt.Errorf("demo: %s sends: %w", p.row.name, err)
	}
	return nil
}

// guessPasswords tries one password after the other on one nonce and Call-ID, as svcrack does.
func guessPasswords(ctx context.Context, p *phone) error {
	const account = "201"
	stop := context.AfterFunc(ctx, func() { _ = p.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	r := request{user: account, callID: newCallID(p.row.sources[0], account)}
	for n := 0; ; n++ {
		if r.auth == nil {
			a, err := p.exchange(ctx, r)
			switch {
			case ctx.Err() != nil:
				return nil
			case errors.Is(err, errNoAnswer):
				continue
			case err != nil:
				return err
			}
			r.auth = &credentials{user: account, nonce: a.nonce}
		}
		r.auth.response = digestResponse(account, strconv.Itoa(1000+n), r.auth.nonce)
		if err := p.sendOnly(r); err != nil {
			return err
		}
		if !sleepFor(ctx, p.row.pause) {
			return nil
		}
	}
}

// guessAMIPasswords tries passwords of the manager "admin". What it sends is counted in connections.
func guessAMIPasswords(ctx context.Context, s *testNetwork, l *tally, r *participantRow) error {
	src := r.sources[0]
	for n := 0; ; n++ {
		seq := l.countSent(r)
		// What is on its way when the attack ends arrives, as packets do.
		conn, err := s.dialAMI(context.WithoutCancel(ctx), src, dialWait)
		if err == nil {
			l.countArrived(src, seq)
			err = tryAMILogin(ctx, conn, n)
		}
		var timeout net.Error
		switch {
		case err == nil || ctx.Err() != nil:
		case errors.As(err, &timeout) && timeout.Timeout(): // dropped, or cut in the middle
		default:
			return fmt.Errorf("demo: %s: %w", r.name, err)
		}
		if !sleepFor(ctx, r.pause) {
			return nil
		}
	}
}

// tryAMILogin is one login. That the answer does not come is no error: the ban may have.
func tryAMILogin(ctx context.Context, conn net.Conn, n int) error {
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_ = conn.SetDeadline(time.Now().Add(dialWait))
	if _, err := fmt.Fprintf(conn, "Action: Login\r\nUsername: admin\r\nSecret: %d\r\n\r\n", 1000+n); err != nil {
		return nil
	}
	for r := bufio.NewReader(conn); ; {
		line, err := r.ReadString('\n')
		if err != nil || line == "Response: Error\r\n" {
			return nil
		}
	}
}

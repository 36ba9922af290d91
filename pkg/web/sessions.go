package web

import (
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"sync"
	"time"

	"github.com/ringwall/ringwall/pkg/api"
)

const (
	ticketLifetime  = 5 * time.Minute // to open the address that ringwall page prints
	sessionLifetime = time.Hour       // to change things
	maxSessions     = 64              // at once; as many tickets
	cookieName      = "ringwall_page"
)

// secretDigest is the key under which what belongs to a secret is kept: how long a look-up takes says nothing about the
// secret.
type secretDigest [sha256.Size]byte

func digestOf(secret string) secretDigest { return sha256.Sum256([]byte(secret)) }

// sessions are the browsers that may change things, and the tickets that make one.
type sessions struct {
	mu      sync.Mutex
	tickets map[secretDigest]session
	open    map[secretDigest]session
}

// session is the right of one browser to change things, passed on by a process that may use the control socket.
type session struct {
	by     api.Peer
	until  time.Time
	token  string // that each of its forms must hold
	notice string // what its latest change did, to be shown once
}

func sessionEnd(s session) time.Time { return s.until }

// issueTicket makes a secret that opens the page once.
func (s *sessions) issueTicket(now time.Time, by api.Peer) (secret string, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	secret, until = rand.Text(), now.Add(ticketLifetime)
	putBounded(&s.tickets, digestOf(secret), session{by: by, until: until}, maxSessions, sessionEnd)
	return secret, until
}

// openSession takes a ticket for the secret of a session.
func (s *sessions) openSession(now time.Time, ticket string) (secret string, by api.Peer, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := digestOf(ticket)
	t, ok := s.tickets[k]
	delete(s.tickets, k)
	if !ok || !now.Before(t.until) {
		return "", api.Peer{}, false
	}
	secret = rand.Text()
	putBounded(&s.open, digestOf(secret), session{by: t.by, until: now.Add(sessionLifetime), token: rand.Text()},
		maxSessions, sessionEnd)
	return secret, t.by, true
}

// sessionOf returns the session of a request.
func (s *sessions) sessionOf(now time.Time, r *http.Request) (session, secretDigest, bool) {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return session{}, secretDigest{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := digestOf(c.Value)
	have, ok := s.open[k]
	if ok && !now.Before(have.until) {
		delete(s.open, k)
		ok = false
	}
	return have, k, ok
}

// setNotice keeps a sentence for the next page of a session.
func (s *sessions) setNotice(k secretDigest, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have, ok := s.open[k]; ok {
		have.notice = text
		s.open[k] = have
	}
}

// takeNotice returns the sentence of setNotice, once.
func (s *sessions) takeNotice(k secretDigest) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	have, ok := s.open[k]
	if !ok || have.notice == "" {
		return ""
	}
	text := have.notice
	have.notice = ""
	s.open[k] = have
	return text
}

// endSession ends a session.
func (s *sessions) endSession(k secretDigest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, k)
}

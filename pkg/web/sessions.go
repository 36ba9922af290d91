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
	ticketFor  = 5 * time.Minute // to open the address that ringwall page prints
	sessionFor = time.Hour       // to change things
	maxKeys    = 64              // of each, at once
	cookieName = "ringwall_page"
)

// key is the digest of a secret: who reads the memory of a look-up learns nothing about the secret.
type key [sha256.Size]byte

func keyOf(secret string) key { return sha256.Sum256([]byte(secret)) }

// sessions are who may change things, and who is about to.
type sessions struct {
	mu      sync.Mutex
	tickets map[key]session
	open    map[key]session
}

// session is the right of one browser to change things, passed on by a process that may use the control socket.
type session struct {
	by    api.Peer
	until time.Time
	token string // that each of its forms must hold
	told  string // what its latest change did, to be shown once
}

// ticket makes a secret that opens the page once.
func (s *sessions) ticket(now time.Time, by api.Peer) (secret string, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	secret, until = rand.Text(), now.Add(ticketFor)
	put(&s.tickets, keyOf(secret), session{by: by, until: until})
	return secret, until
}

// enter takes a ticket for the secret of a session.
func (s *sessions) enter(now time.Time, ticket string) (secret string, by api.Peer, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := keyOf(ticket)
	t, ok := s.tickets[k]
	delete(s.tickets, k)
	if !ok || !now.Before(t.until) {
		return "", api.Peer{}, false
	}
	secret = rand.Text()
	put(&s.open, keyOf(secret), session{by: t.by, until: now.Add(sessionFor), token: rand.Text()})
	return secret, t.by, true
}

// of returns the session of a request.
func (s *sessions) of(now time.Time, r *http.Request) (session, key, bool) {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return session{}, key{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := keyOf(c.Value)
	have, ok := s.open[k]
	if ok && !now.Before(have.until) {
		delete(s.open, k)
		ok = false
	}
	return have, k, ok
}

// tell keeps a sentence for the next page of a session.
func (s *sessions) tell(k key, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have, ok := s.open[k]; ok {
		have.told = text
		s.open[k] = have
	}
}

// told takes that sentence.
func (s *sessions) told(k key) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	have, ok := s.open[k]
	if !ok || have.told == "" {
		return ""
	}
	text := have.told
	have.told = ""
	s.open[k] = have
	return text
}

// leave ends a session.
func (s *sessions) leave(k key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, k)
}

// put adds to a map of sessions, which holds maxKeys at most: the oldest goes.
func put(m *map[key]session, k key, n session) {
	if *m == nil {
		*m = make(map[key]session)
	}
	for len(*m) >= maxKeys {
		var oldest key
		var until time.Time
		for k, have := range *m {
			if until.IsZero() || have.until.Before(until) {
				oldest, until = k, have.until
			}
		}
		delete(*m, oldest)
	}
	(*m)[k] = n
}

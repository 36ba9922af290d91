package witness

import (
	"net/netip"
	"time"

	"github.com/ringwall/ringwall/pkg/asterisk/event"
)

const (
	minute = int64(time.Minute)
	hour   = int64(time.Hour)

	// manyUsers is how many different users somebody asks for with OPTIONS who searches for them.
	manyUsers = 4
)

// source is what is remembered of an address.
type source struct {
	// Calls without credentials that Asterisk took, and that it did not for their number.
	accepted, refused uint32

	users     [manyUsers - 1]uint32 // hashes of those that it asked for
	usersAt   int64                 // when the first of them was
	scannerAt int64                 // when its mark was told
	garbageAt int64                 // when it sent what is not SIP
	unseenAt  int64                 // when Asterisk challenged it, and no sensor saw that
}

func (w *Witness) source(a netip.Addr) *entry[source] {
	e, _ := w.sources.put(w.now, w.of(forSource, w.addr(a), 0), anySource)
	return e
}

// promote keeps a source from those that came once.
func (w *Witness) promote(e *entry[source]) {
	if e.class != knownSource || w.now-e.at > hour {
		w.sources.move(w.now, e, knownSource)
	}
}

// acceptCall notes that Asterisk takes calls without credentials from there.
func (w *Witness) acceptCall(a netip.Addr) {
	e := w.source(a)
	e.value.accepted++
	w.promote(e)
}

// refuseCall says whether somebody whose call is refused for its number searches for numbers: a provider's calls are
// refused, too, but more of them are not.
func (w *Witness) refuseCall(a netip.Addr) bool {
	s := &w.source(a).value
	s.refused++
	if s.refused > 1<<10 {
		s.refused, s.accepted = s.refused/2, s.accepted/2
	}
	return s.refused > s.accepted
}

// askFor notes that somebody asks for a user with OPTIONS, and says whether he searches for users.
func (w *Witness) askFor(a netip.Addr, user uint64) bool {
	s := &w.source(a).value
	if w.now-s.usersAt > hour || s.usersAt == 0 {
		s.users, s.usersAt = [manyUsers - 1]uint32{}, w.now
	}
	mark := uint32(user>>32) | 1
	for i, u := range s.users {
		switch u {
		case mark:
			return false
		case 0:
			s.users[i] = mark
			return false
		}
	}
	s.usersAt = 0 // and count again
	return true
}

// isUnseen says whether challenges to an address may be unknown, because what it sends is not seen, or was not.
func (w *Witness) isUnseen(a netip.Addr) bool {
	e := w.sources.get(w.now, w.of(forSource, w.addr(a), 0))
	return e != nil && e.value.unseenAt != 0 || w.sources.evicted > 0 && e == nil
}

// findScanner tells of a scanner's mark, once a minute for each source.
func (w *Witness) findScanner(s *Sight, mark string, user, callID []byte) {
	e := w.source(s.Remote.Addr())
	if e.value.scannerAt != 0 && w.now-e.value.scannerAt < minute {
		return
	}
	e.value.scannerAt = w.now
	l := &w.localAt(s.Asterisk).value
	ev := w.eventOf(event.Scanner, s, l)
	ev.Account, ev.Session, ev.Detail = text(user, maxAccount), text(callID, maxSession), mark
	w.find(l, ev)
}

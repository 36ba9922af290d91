package engine

import (
	"fmt"
	"net/netip"

	"github.com/ringwall/ringwall/pkg/ban"
)

const (
	placesPerAccount = 8 // that are remembered, those where it was last
	newPlacesWithin  = 3600
	// How much of an address is one network, where nobody knows who runs it: what providers are given at once, so that
	// a phone that is given another address by its own is no further away.
	ipv4PlaceBits = 16
	ipv6PlaceBits = 32
)

// accountPlace is a place from which an account logged in. Times are in seconds.
type accountPlace struct {
	network sourceKey // the zero value for all private addresses
	asn     uint32    // 0 where nobody knows
	country [2]byte   // the zero value where nobody knows
	first   uint32
	last    uint32
}

// SetLocate says who knows where an address is registered, for the places of accounts. It is asked in the middle of a
// judgement, once for each sender of a login, so it must answer at once.
func (e *Engine) SetLocate(locate func(netip.Addr) ban.Place) { e.locate = locate }

// placeFor returns where an address is.
func (e *Engine) placeFor(a netip.Addr) accountPlace {
	p := accountPlace{first: seconds(e.now), last: seconds(e.now)}
	if a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() {
		return p
	}
	bits := ipv4PlaceBits
	if a.Is6() {
		bits = ipv6PlaceBits
	}
	network, _ := a.Prefix(bits)
	p.network = network.Addr().As16()
	if e.locate != nil {
		at := e.locate(a)
		p.asn = at.ASN
		copy(p.country[:], at.Country)
	}
	return p
}

// isSame says whether two places are one: the same network, or one of the same operator in the same country, as far as
// that is known of both.
func (p *accountPlace) isSame(q *accountPlace) bool {
	if p.network == q.network {
		return true
	}
	asns, countries := p.asn != 0 && q.asn != 0, p.country != [2]byte{} && q.country != [2]byte{}
	return (asns || countries) && (!asns || p.asn == q.asn) && (!countries || p.country == q.country)
}

// addPlace notes a place of an account, and says whether it is a new one. Of too many places the one where the account
// was the longest ago is forgotten.
func (a *account) addPlace(here accountPlace) (isNew bool) {
	oldest := 0
	for i := range a.places {
		if p := &a.places[i]; p.isSame(&here) {
			p.first, p.last = min(p.first, here.first), max(p.last, here.last)
			return false
		}
		if a.places[i].last < a.places[oldest].last {
			oldest = i
		}
	}
	if len(a.places) == 0 || here.first < a.placesSince {
		a.placesSince = here.first
	}
	if len(a.places) >= placesPerAccount {
		a.places[oldest] = here
		return true
	}
	a.places = append(a.places, here)
	return true
}

// noticePlace reports an account that logs in from where it never was. Until policy.newplace.learning is over, its user
// may just not have been there yet, and one that was in many places, as a telephone in somebody's pocket, will be in
// others: of those only several new places within an hour are reported. Nobody is banned for it.
func (j *judgement) noticePlace(id uint64, a *account) {
	rule := j.policy.NewPlace
	if a == nil || rule.Learning <= 0 || j.engine.IsExempt(j.addr) {
		return
	}
	isFirst, travels := len(a.places) == 0, len(a.places) == placesPerAccount
	if !a.addPlace(j.engine.placeFor(j.addr)) || isFirst {
		return
	}
	now, several := seconds(j.now), 0
	for i := range a.places {
		if at := a.places[i].first; at > a.placesSince && now-at < newPlacesWithin {
			several++
		}
	}
	known := int64(now-a.placesSince) * second
	isSeveral := rule.Places > 0 && several >= rule.Places && known >= newPlacesWithin*second
	if (known < int64(rule.Learning) || travels) && !isSeveral || !j.engine.firstReport(forNewPlace, sourceKey{}, id) {
		return
	}
	where := "a place where it never was"
	if several > 1 {
		where = fmt.Sprintf("%d places where it never was, within an hour", several)
	}
	j.appendDecision(ban.ActionNewPlace, ban.ReasonLogin, j.engine.prefixOf(j.key), 0, true,
		"this account logged in from "+where+": unless that is its user, change its password")
}

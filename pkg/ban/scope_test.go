package ban_test

import (
	"testing"

	"github.com/ringwall/ringwall/pkg/ban"
)

// Two bans of one source become one, which closes no less than both.
func TestClosesBothCoversEach(t *testing.T) {
	all := []ban.Closes{ban.ClosesAll, ban.ClosesUDP, ban.ClosesManager, ban.ClosesSIP}
	for _, a := range all {
		for _, b := range all {
			both := ban.ClosesBoth(a, b)
			if !both.Covers(a) || !both.Covers(b) || both != ban.ClosesBoth(b, a) {
				t.Errorf("%v and %v: %v", a, b, both)
			}
		}
	}
	if got := ban.ClosesBoth(ban.ClosesUDP, ban.ClosesSIP); got != ban.ClosesSIP {
		t.Errorf("udp and sip: %v", got)
	}
}

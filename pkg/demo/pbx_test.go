package demo

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestFramesAreAsterisks compares with frames that Asterisk 22.10.1 wrote, addresses and times apart.
func TestFramesAreAsterisks(t *testing.T) {
	now := time.Date(2026, 11, 22, 21, 48, 54, 865_000_000, time.UTC)
	from := netip.MustParseAddrPort("203.0.113.5:43504")
	head := func(event, severity, account string) string {
		return "Event: " + event + "\r\nPrivilege: security,all\r\nEventTV: 2026-11-22T21:48:54.865+0000\r\nSeverity: " +
			severity +
			"\r\nService: PJSIP\r\nEventVersion: 1\r\nAccountID: " + account + "\r\nSessionID: 10f0@lab\r\n" +
			"LocalAddress: IPV4/UDP/192.0.2.1/5060\r\nRemoteAddress: IPV4/UDP/203.0.113.5/43504\r\n"
	}
	for _, r := range []struct {
		event, severity, account string
		own                      []string
		want                     string
	}{
		{"InvalidAccountID", "Error", "100", nil, head("InvalidAccountID", "Error", "100") + "\r\n"},
		{"ChallengeSent", "Informational", "<unknown>", []string{"Challenge", ""},
			head("ChallengeSent", "Informational", "<unknown>") + "Challenge: \r\n\r\n"},
		{"SuccessfulAuth", "Informational", "6001", []string{"UsingPassword", "1"},
			head("SuccessfulAuth", "Informational", "6001") + "UsingPassword: 1\r\n\r\n"},
		{"ChallengeResponseFailed", "Error", "6001",
			[]string{"Challenge", "1/ab", "Response", "80d0", "ExpectedResponse",
				""},
			head("ChallengeResponseFailed", "Error", "6001") +
				"Challenge: 1/ab\r\nResponse: 80d0\r\nExpectedResponse: \r\n\r\n"},
	} {
		if got := string(eventFrame(now, r.event, r.severity, r.account, "10f0@lab", from, r.own...)); got != r.want {
			t.Errorf("got  %q\nwant %q", got, r.want)
		}
	}
}

func TestInjectedLineComesBeforeTheRealOne(t *testing.T) {
	account := request{user: injectedUser}.reportedAccount()
	if len(account) > 36 {
		t.Errorf("Asterisk cuts %q", account)
	}
	raw := string(eventFrame(start, "InvalidAccountID", "Error", account, "1@x",
		netip.MustParseAddrPort("203.0.113.200:5060")))
	lines := strings.Split(strings.TrimSuffix(raw, "\r\n\r\n"), "\r\n")
	first := ""
	for _, l := range lines {
		if v, ok := strings.CutPrefix(l, "RemoteAddress: "); ok && first == "" {
			first = v
		}
	}
	if first != "IPV4/UDP/8.8.8.8/5" {
		t.Errorf("the first RemoteAddress is %q", first)
	}
}

func TestRequestsSurviveTheWire(t *testing.T) {
	for _, r := range []request{
		{user: "201", callID: "a@198.51.100.20", seq: 1},
		{user: "1002", callID: "b@2001:db8::5", seq: 1<<32 - 1},
		{user: injectedUser, callID: "c@x", seq: 7},
		{user: "201", callID: "d@x", seq: 9, auth: &credentials{"201", "1/ab", "80d0"}},
	} {
		got, ok := parseRequest(r.packet("[2001:db8::5]:5060"))
		if !ok || got.user != r.user || got.callID != r.callID || got.seq != r.seq ||
			(got.auth == nil) != (r.auth == nil) ||
			r.auth != nil && *got.auth != *r.auth {
			t.Errorf("%+v became %+v, %v", r, got, ok)
		}
		if a, ok := parseAnswer(r.replyPacket("1/ab")); !ok || a != (sipAnswer{401, r.seq, "1/ab"}) {
			t.Errorf("%+v, %v", a, ok)
		}
		if a, ok := parseAnswer(r.replyPacket("")); !ok || a != (sipAnswer{200, r.seq, ""}) {
			t.Errorf("%+v, %v", a, ok)
		}
	}
}

// TestDigest compares with a response that another implementation of MD5 made.
func TestDigest(t *testing.T) {
	if got := digestResponse("201", "k7Lq2m", "1/ab"); got != "9a4e246a9b8487e0e15fc959c2c79417" {
		t.Error(got)
	}
	if digestResponse("201", "k7Lq2m", "1/ab") == digestResponse("201", oldPassword, "1/ab") {
		t.Error("the password does not matter")
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add(request{user: "201", callID: "a@x", seq: 1, auth: &credentials{"201", "n", "r"}}.packet("192.0.2.9:5060"))
	f.Add(request{user: injectedUser, callID: "a@x", seq: 1}.packet("192.0.2.9:5060"))
	f.Add([]byte("REGISTER  \r\nFrom:<sip:%zz@\r\nCSeq:1\r\nCall-ID:x\r\nAuthorization:Digest \"=,,=\r\n\r\n"))
	f.Add([]byte("SIP/2.0 401\r\nCSeq: 1\r\nWWW-Authenticate: nonce=\r\n\r\n"))
	f.Fuzz(func(t *testing.T, packet []byte) {
		_, _ = parseAnswer(packet)
		r, ok := parseRequest(packet)
		if !ok {
			return
		}
		if r.callID == "" || len(r.reportedAccount()) > 36 {
			t.Errorf("%+v", r)
		}
		if _, ok := parseAnswer(r.replyPacket("n")); !ok {
			t.Errorf("the answer to %+v is none", r)
		}
	})
}

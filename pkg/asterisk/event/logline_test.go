package event

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestLinesBehindWhatLoggersPutBeforeThem(t *testing.T) {
	msg := sample("ChallengeSent").message()
	for _, head := range []string{
		"[2026-11-22 21:48:57.667] SECURITY[23417] res_security_log.c: ",
		"[Nov 22 21:48:57] SECURITY[23417] res_security_log.c: ",
		"[Nov  2 21:48:57] SECURITY[23417][C-0000001f] res_security_log.c: ",
		"[Nov 22 21:48:57] SECURITY[23417]: res_security_log.c:114 security_event_stasis_cb: ",
		"[Nov 22 21:48:57] SECURITY[23417][C-0000001f]: res_security_log.c:114 security_event_stasis_cb: ",
		"[Nov 22 21:48:57] \x1b[1;33mSECURITY\x1b[0m[23417]: " +
			"\x1b[1;37mres_security_log.c\x1b[0m:\x1b[1;37m114\x1b[0m \x1b[1;37msecurity_event_stasis_cb\x1b[0m: ",
		"SECURITY[23417]: res_security_log.c:114 in security_event_stasis_cb: ",
		"Nov 22 21:48:57 pbx asterisk[812]: SECURITY[23417]: res_security_log.c:114 in security_event_stasis_cb: ",
		"Nov 22 21:48:57 pbx asterisk[812]: [Nov 22 21:48:57] SECURITY[23417]: res_security_log.c:114 " +
			"security_event_stasis_cb: ",
		"2026-11-22T21:48:57.667+00:00 SECURITY-pbx asterisk: SECURITY[23417]: res_security_log.c:114 in " +
			"security_event_stasis_cb: ",
		"<134>Nov 22 21:48:57 pbx asterisk[812]: SECURITY[23417]: res_security_log.c:114 in security_event_stasis_cb: ",
		"<134>1 2026-11-22T21:48:57.667+00:00 pbx asterisk 812 - - SECURITY[23417]: res_security_log.c:114 in " +
			"security_event_stasis_cb: ",
		"asterisk-1  | [Nov 22 21:48:57] SECURITY[23417] res_security_log.c: ",
		"2026-11-22T21:48:57.667Z stdout F [Nov 22 21:48:57] SECURITY[23417] res_security_log.c: ",
	} {
		for _, end := range []string{"", "\n", "\r\n"} {
			var ev Event
			if err := DecodeLine(head+msg+end, &ev); err != nil || ev != want("ChallengeSent") {
				t.Errorf("%q: %+v, %v", head+"…"+end, ev, err)
			}
		}
	}
	var ev Event
	if err := DecodeMessage(msg, &ev); err != nil || ev != want("ChallengeSent") {
		t.Errorf("the message alone: %+v, %v", ev, err)
	}
}

// TestColoursInEachFormInWhichLogsHaveThem has the head of a console's line, and of grep --color.
func TestColoursInEachFormInWhichLogsHaveThem(t *testing.T) {
	msg := sample("ChallengeSent").message()
	for _, esc := range colourEscapes {
		for _, head := range []string{
			"[Nov 22 21:48:57] \x1b[1;33mSECURITY\x1b[0m[23417]: " +
				"\x1b[1;37mres_security_log.c\x1b[0m:\x1b[1;37m114\x1b[0m \x1b[1;37mx\x1b[0m: ",
			"[Nov 22 21:48:57] \x1b[0m\x1b[38;2;255;255;0mSECURITY\x1b[0m\x1b[0m[23417]: res_security_log.c: ",
			"Nov 22 21:48:57 pbx asterisk[8]: \x1b[1;33mSECURITY\x1b[0m[23417][C-0000001f]: res_security_log.c:114 " +
				"in x: ",
		} {
			head = strings.ReplaceAll(head, "\x1b[", esc)
			var ev Event
			if err := DecodeLine(head+msg, &ev); err != nil || ev != want("ChallengeSent") {
				t.Errorf("%q: %+v, %v", head, ev, err)
			}
			if esc == "[" {
				continue // which needs more than a bracket around it to be known
			}
			if got := StripColours(head + msg); strings.Contains(got, esc) || !strings.HasSuffix(got, msg) {
				t.Errorf("%q becomes %q", head, got)
			}
		}
		for _, head := range []string{
			"[1] \x1b[1;33xSECURITY[1] res_security_log.c: ",
			"[1] \x1b[1;33mNOTICE\x1b[0m[1]: x.c:1 y: \x1b[1;33mSECURITY[1] res_security_log.c: ",
			"[1] \x1b[" + strings.Repeat("1;", 20) + "mSECURITY[1] res_security_log.c: ",
			"[1] SECURITY[1] x\x1b[0mres_security_log.c: ",
			strings.Repeat("\x1b[0m", 5) + "SECURITY[1] res_security_log.c: ",
		} {
			head = strings.ReplaceAll(head, "\x1b[", esc)
			var ev Event
			if err := DecodeLine(head+msg, &ev); tamperReason(err) != ReasonStray {
				t.Errorf("%q: %+v, %v", head, ev, err)
			}
		}
	}
	for text, want := range map[string]string{
		"": "", "a": "a", "\x1b[": "\x1b[", "#033[1": "#033[1", "a#033[1mb": "ab", "^[[0m^[[K": "", "[1m": "[1m",
		`\e[m\x1b[mü`:                           "ü",
		"#033[" + strings.Repeat("1", 40) + "m": "#033[" + strings.Repeat("1", 40) + "m",
	} {
		if got := StripColours(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

// TestTextOfOtherLinesNamesNobody has a peer's text, which other messages and other programs log, pose as an event.
func TestTextOfOtherLinesNamesNobody(t *testing.T) {
	posing := sample("ChallengeSent").line()
	for _, head := range []string{
		"[Nov 22 21:48:57] NOTICE[23417] chan_sip.c: Failed to authenticate device ",
		"[Nov 22 21:48:57] VERBOSE[23417][C-00000001] pbx.c: ",
		"[Nov 22 21:48:57] NOTICE[23417]: chan_sip.c:12 handle: ",
		"[Nov 22 21:48:57] Asterisk says ",
		"NOTICE[23417]: chan_sip.c:12 in handle: ",
		"Nov 22 21:48:57 pbx asterisk[812]: NOTICE[23417]: chan_sip.c:12 in handle: ",
		"Nov 22 21:48:57 pbx asterisk[812]: [Nov 22 21:48:57] NOTICE[23417]: chan_sip.c:12 handle: ",
		"Nov 22 21:48:57 pbx kamailio[812]: INFO: ",
		"Nov 22 21:48:57 pbx kamailio[812]: user ",
		"Nov 22 21:48:57 pbx kamailio[81x]: ", "Nov 22 21:48:57 pbx kamailio812]: ",
		"Nov 22 21:48:57 pbx kamailio: user ", "<134>Nov 22 21:48:57 pbx kamailio: user ",
		"<134>Nov 22 21:48:57 pbx kamailio[812]: user ", "<134>Nov 22 21:48:57 pbx user= ", "user= ", "a[1 ",
		`10.99.0.66 "GET / `,
		`10.99.0.66 - - [22/Nov/2026] "GET / `, "user=", "<x>", "<1", "a] ", "x", "a\tb ",
		strings.Repeat("x", 257) + " ",
		"one two three four five six seven eight nine ten ",
		"\x1b[1;33mNOTICE\x1b[0m",
	} {
		var ev Event
		if err := DecodeLine(head+posing, &ev); tamperReason(err) != ReasonStray || ev != (Event{}) {
			t.Errorf("%q: %+v, %v", head, ev, err)
		}
	}
	var ev Event
	if err := DecodeLine(`[x] NOTICE[1] a.c: SecurityEvent="ChallengeSent`, &ev); tamperReason(err) != ReasonStray {
		t.Errorf("the first field alone: %v", err)
	}
	for _, line := range []string{
		"", "\r", "Event: Foo\r", "[Nov 22 21:48:57] NOTICE[1] res_pjsip.c: Request 'REGISTER' failed for " +
			"'10.99.0.66:5'",
		"[Nov 22 21:48:57] SECURITY[1] res_security_log.c:", "[Nov 22 21:48:57] SECURITY[1] other.c: text",
		"[Nov 22 21:48:57] Asterisk 22.10.1 built by root @ lab",
		`{"timestamp":"x","message":"SecurityEvent=\"ChallengeSent\",EventTV=\"2026\",Severity=\"Error\""}`,
	} {
		var ev Event
		if err := DecodeLine(line, &ev); !errors.Is(err, ErrNotSecurity) {
			t.Errorf("%q: %+v, %v", line, ev, err)
		}
	}
}

func TestQuotesInAValueNameNobody(t *testing.T) {
	truth := want("ChallengeSent").Remote
	for _, value := range []string{
		`a",RemoteAddress="IPV4/UDP/8.8.8.8/1`,
		`a",RemoteAddress="IPV4/UDP/8.8.8.8/1"`,
		`a",LocalAddress="IPV4/UDP/10.99.0.1/5060",RemoteAddress="IPV4/UDP/8.8.8.8/1`,
		`a",LocalAddress="IPV4/UDP/10.99.0.1/5060",RemoteAddress="IPV4/UDP/8.8.8.8/1",Challenge="`,
		`a",LocalAddress="IPV4/UDP/10.99.0.1/5060",RemoteAddress="IPV4/UDP/8.8.8.8/1",Challenge="",Module="`,
		`a",SessionID="b",LocalAddress="IPV4/UDP/10.99.0.1/5060",RemoteAddress="IPV4/UDP/8.8.8.8/1",Challenge="`,
		`a",Module="b`, `a",SessionID="b`,
	} {
		for _, key := range []string{"AccountID", "SessionID", "Challenge"} {
			w := sample("ChallengeSent")
			w.leave = map[string]bool{"Module": true, "SessionTV": true}
			w.values[key] = value
			var ev Event
			if err := DecodeLine(w.line(), &ev); err == nil && ev.Remote != truth || err != nil &&
				tamperReason(err) == "" {
				t.Errorf("%s %q: %+v, %v", key, value, ev, err)
			}
		}
	}
	for _, value := range []string{`a"b\"c`, `"`, `""`, `",`, `","`, `a",b="c`, `a",Response=b`, `a=",="`,
		`",AttemptedTransportation="`} {
		w := sample("ChallengeSent")
		w.values["AccountID"], w.values["Challenge"] = value, value
		var ev Event
		if err := DecodeLine(w.line(), &ev); err != nil || ev.Account != value || ev.Challenge != value ||
			ev.Remote != truth {
			t.Errorf("%q: %+v, %v", value, ev, err)
		}
	}
}

func TestWhatTheLoggerDeletesNamesNobody(t *testing.T) {
	const forged = `x",LocalAddress="IPV4/UDP/10.99.0.1/5060",RemoteAddress="IPV4/UDP/8.8.8.8/5`
	for _, session := range []string{
		forged + "\x1b", forged + `",Module="` + "\x1b", forged + `",SessionTV="` + "\x1b", forged + `",Module="`,
	} {
		for name := range specs {
			w := sample(name)
			w.leave = map[string]bool{"Module": true, "SessionTV": true}
			w.values["SessionID"] = session
			var ev Event
			line := termStrip(w.line())
			if reason := tamperReason(DecodeLine(line, &ev)); reason == "" {
				t.Errorf("%q: %+v", line, ev)
			}
		}
	}
	w := sample("InvalidAccountID")
	w.values["SessionID"] = `x",LocalAddress="IPV4/UDP/10.99.0.1/5060",Rem` + "\x1b"
	var ev Event
	if err := DecodeLine(termStrip(w.line()), &ev); err != nil || ev.Remote != want("InvalidAccountID").Remote {
		t.Errorf("the true source with its name cut and mended: %+v, %v", ev, err)
	}
}

func TestBothHalvesOfABrokenLineAreTampering(t *testing.T) {
	for name := range specs {
		for _, key := range strings.Fields(specs[name]) {
			w := sample(name)
			header := strings.Trim(key, "[]")
			for _, br := range []string{"\n", "\r\n"} {
				w.values[header] = "x" + br + "Evil: yes"
				first, second, _ := strings.Cut(w.line(), "\n")
				var ev Event
				if reason := tamperReason(DecodeLine(first, &ev)); reason == "" || ev != (Event{}) {
					t.Errorf("%s broken in %s: the first half is %+v", name, header, ev)
				}
				err := DecodeLine(second, &ev)
				last := header == w.headers()[len(w.headers())-1] // then no field follows that would show whose it is
				if reason := tamperReason(err); reason == "" && !(last && errors.Is(err, ErrNotSecurity)) {
					t.Errorf("%s broken in %s: the second half is %+v, %v", name, header, ev, err)
				}
			}
		}
	}
}

func TestLinesCutShortAreTampering(t *testing.T) {
	line := sample("ChallengeResponseFailed").line()
	from := strings.Index(line, "SecurityEvent")
	for end := from + len(`SecurityEvent="`); end < len(line); end++ {
		var ev Event
		err := DecodeLine(line[:end], &ev)
		// Cut after an optional field it is a shorter event, as Asterisk may write it.
		if err == nil && !strings.HasSuffix(line[:end], `5ec4e7"`) && !strings.HasSuffix(line[:end], `res_pjsip"`) {
			t.Errorf("%q decodes", line[from:end])
		}
		if err != nil && tamperReason(err) == "" {
			t.Errorf("%q: %v", line[from:end], err)
		}
	}
}

func TestOldAsterisksLines(t *testing.T) {
	const line = `[Nov 22 21:48:57] SECURITY[23417] res_security_log.c: SecurityEvent="SuccessfulAuth",EventTV="1795384137-8901",` +
		`Severity="Informational",Service="AMI",EventVersion="1",AccountID="admin",SessionID="0x7f57",` +
		`LocalAddress="IPV4/TCP/0.0.0.0/5038",RemoteAddress="IPV4/TCP/10.99.0.66/58674",SessionTV="1795384137-0"`
	var ev Event
	if err := DecodeLine(line, &ev); err != nil || ev.UsingPassword || ev.Time != time.Unix(1795384137, 8901000).UTC() {
		t.Errorf("Asterisk 1.8: %+v, %v", ev, err)
	}
	for _, bad := range []string{"1795384137", "-", "1795384137-", "-12", "17953841370-1", "1-1234567", "1-x", "x-1"} {
		if err := DecodeLine(strings.Replace(line, "1795384137-8901", bad, 1), &ev); tamperReason(err) != ReasonTime {
			t.Errorf("EventTV %q: %v", bad, err)
		}
	}
}

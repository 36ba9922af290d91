package sip

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const register = "REGISTER sip:pbx.example.org SIP/2.0\r\n" +
	"Via: SIP/2.0/UDP 192.0.2.7:5060;rport;branch=z9hG4bK-1\r\n" +
	"Via: SIP/2.0/TCP 192.0.2.8;branch=z9hG4bK-2\r\n" +
	"Max-Forwards: 70\r\n" +
	"From: \"Alice \\\"A\\\"\" <sip:alice@pbx.example.org>;tag=a1\r\n" +
	"To: <sip:alice@pbx.example.org>\r\n" +
	"Call-ID: 3848276298220188511@192.0.2.7\r\n" +
	"CSeq: 2 REGISTER\r\n" +
	"Contact: <sip:alice@192.0.2.7:5062;transport=udp>;expires=3600\r\n" +
	"User-Agent: Yealink SIP-T46S 66.85.0.5\r\n" +
	"Authorization: Digest username=\"alice\", realm=\"asterisk\", nonce=\"1700000000/abc\", " +
	"uri=\"sip:pbx.example.org\", response=\"0123456789abcdef0123456789abcdef\", " +
	"algorithm=md5, cnonce=\"c1\", opaque=\"o1\", qop=auth, nc=00000001\r\n" +
	"Content-Length: 0\r\n\r\n"

const unauthorized = "SIP/2.0 401 Unauthorized\r\n" +
	"Via: SIP/2.0/UDP 192.0.2.7:5060;rport=5060;received=192.0.2.7;branch=z9hG4bK-1\r\n" +
	"Call-ID: 3848276298220188511@192.0.2.7\r\n" +
	"From: <sip:alice@pbx.example.org>;tag=a1\r\n" +
	"To: <sip:alice@pbx.example.org>;tag=z9\r\n" +
	"CSeq: 2 REGISTER\r\n" +
	"WWW-Authenticate: Digest realm=\"asterisk\",nonce=\"1700000000/abc\",opaque=\"5d6\"," +
	"stale=true,algorithm=MD5,qop=\"auth\"\r\n" +
	"Server: Asterisk PBX 22.10.1\r\n" +
	"Content-Length:  0\r\n\r\n"

func parsed(t testing.TB, text string) *Message {
	t.Helper()
	var m Message
	if err := Parse([]byte(text), &m); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return &m
}

// facts are what a message says, in a form that tests compare.
func facts(m *Message) map[string]string {
	f := map[string]string{
		"method": string(m.Method), "status": fmt.Sprint(m.Status), "call-id": string(m.CallID),
		"cseq": fmt.Sprintf("%d %s", m.CSeq, m.CSeqMethod), "branch": string(m.Branch), "sent-by": string(m.ViaSentBy),
		"vias": fmt.Sprint(m.ViaCount), "agent": string(m.UserAgent), "length": fmt.Sprint(m.ContentLength),
		"malformed": m.Malformed.String(), "truncated": fmt.Sprint(m.Truncated),
	}
	uri := func(name string, u *URI) {
		f[name] = string(u.Raw)
		f[name+".user"], f[name+".host"] = string(u.User), string(u.Host)
		f[name+".port"], f[name+".scheme"] = fmt.Sprint(u.Port), string(u.Scheme)
	}
	uri("uri", &m.RequestURI)
	for name, a := range map[string]*Address{"from": &m.From, "to": &m.To, "contact": &m.Contact} {
		uri(name, &a.URI)
		f[name+".tag"], f[name+".display"] = string(a.Tag), string(a.Display)
	}
	for i, c := range m.Credentials() {
		f[fmt.Sprintf("credentials%d", i)] = fmt.Sprintf("%v|%s|%s|%s|%s|%s|%s|%s|%s|%s|%s|%s", c.Proxy, c.Scheme, c.Username,
			c.Realm, c.Nonce, c.URI, c.Response, c.Algorithm, c.CNonce, c.Opaque, c.QOP, c.NC)
	}
	for i, c := range m.Challenges() {
		f[fmt.Sprintf("challenge%d", i)] = fmt.Sprintf("%v|%s|%s|%s|%s|%s|%s|%v", c.Proxy, c.Scheme, c.Realm, c.Nonce,
			c.Opaque, c.Algorithm, c.QOP, c.Stale)
	}
	return f
}

func wantFacts(t *testing.T, m *Message, want map[string]string) {
	t.Helper()
	got := facts(m)
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%s: %q instead of %q", name, got[name], value)
		}
	}
}

func TestRequestWithCredentials(t *testing.T) {
	m := parsed(t, register)
	wantFacts(t, m, map[string]string{
		"method": "REGISTER", "status": "0", "uri": "sip:pbx.example.org", "uri.host": "pbx.example.org", "uri.user": "",
		"branch": "z9hG4bK-1", "sent-by": "192.0.2.7:5060", "vias": "2",
		"from": "sip:alice@pbx.example.org", "from.user": "alice", "from.host": "pbx.example.org", "from.tag": "a1",
		"from.display": `Alice \"A\"`, "to.user": "alice", "to.tag": "",
		"call-id": "3848276298220188511@192.0.2.7", "cseq": "2 REGISTER",
		"contact.user": "alice", "contact.host": "192.0.2.7", "contact.port": "5062",
		"agent": "Yealink SIP-T46S 66.85.0.5", "length": "0", "malformed": "", "truncated": "false",
		"credentials0": "false|Digest|alice|asterisk|1700000000/abc|sip:pbx.example.org|0123456789abcdef0123456789abcdef|" +
			"md5|c1|o1|auth|00000001",
	})
	if !m.IsRequest() || !m.MethodIs("register") || m.HeadBytes != len(register) {
		t.Errorf("a request of %d bytes: %v, %d", len(register), m.IsRequest(), m.HeadBytes)
	}
}

func TestAnswerWithChallenge(t *testing.T) {
	m := parsed(t, unauthorized)
	wantFacts(t, m, map[string]string{
		"method": "", "status": "401", "branch": "z9hG4bK-1", "to.tag": "z9", "cseq": "2 REGISTER", "malformed": "",
		"agent": "Asterisk PBX 22.10.1", "challenge0": "false|Digest|asterisk|1700000000/abc|5d6|MD5|auth|true",
	})
}

// The same message in every way that pjproject takes says the same.
func TestWaysToWriteAMessage(t *testing.T) {
	want := facts(parsed(t, register))
	compact := strings.NewReplacer("Via:", "v:", "From:", "f:", "To:", "t:", "Call-ID:", "i:", "Contact:", "m:",
		"Content-Length:", "l:")
	for name, text := range map[string]string{
		"compact forms":        compact.Replace(register),
		"compact, upper case":  strings.NewReplacer("Via:", "V:", "Call-ID:", "I:", "From:", "F:").Replace(register),
		"spaces before colons": strings.NewReplacer("Call-ID:", "Call-ID \t:", "CSeq:", "CSeq\r\n :").Replace(register),
		"no spaces": strings.NewReplacer("Call-ID: ", "Call-ID:", "From: ", "From:", "CSeq: ", "CSeq:").
			Replace(register),
		"LF only": strings.ReplaceAll(register, "\r\n", "\n"),
		"folded": strings.NewReplacer(": ", ":\r\n\t ", ", realm", ",\r\n realm", ";tag", "\r\n ;tag", "2 REG", "2\r\n REG").
			Replace(register),
		"line ends first": "\r\n\r\n" + register,
		"spaces first":    " \t" + register,
		"folded request line": strings.Replace(register, " sip:pbx.example.org SIP/2.0",
			"\r\n sip:pbx.example.org\r\n SIP / 2.0 ", 1),
		"lower case version": strings.Replace(register, "SIP/2.0\r\n", "sip/2.0\r\n", 1),
		"names in odd case": strings.NewReplacer("Call-ID", "cALL-id", "Via", "VIA", "CSeq", "CSEQ", "Authorization",
			"AUTHORIZATION").Replace(register),
		"scheme in odd case": strings.Replace(register, "username=", "UserName=", 1),
		"parameters with spaces": strings.NewReplacer(";tag=a1", " ; tag = a1", "nonce=", "nonce = ", ";branch=",
			"; branch = ").Replace(register),
		"other headers between": strings.Replace(register, "Max-Forwards",
			"X-a:b\r\nk: timer\r\ns: hello & bye: x\r\nMax-Forwards", 1),
	} {
		t.Run(name, func(t *testing.T) {
			if text == register {
				t.Fatal("the message was not changed")
			}
			got := facts(parsed(t, text))
			for key, value := range want {
				if got[key] != value {
					t.Errorf("%s: %q instead of %q", key, got[key], value)
				}
			}
		})
	}
}

// A CR alone ends a line for pjproject, so that a header may hide behind it.
func TestHeadersThatHide(t *testing.T) {
	for name, row := range map[string]struct {
		old, new string
		fault    Malformed
	}{
		"CR alone":         {"User-Agent: ", "User-Agent: x\rCall-ID: hidden\rX-a: ", LoneCR | RepeatedHeader},
		"joined to CSeq":   {"2 REGISTER", "2 REGISTER & Call-ID : hidden", JoinedHeaders | RepeatedHeader},
		"joined to From":   {"tag=a1", "tag=a1&i:hidden", JoinedHeaders | RepeatedHeader},
		"joined to number": {"Max-Forwards: 70", "Max-Forwards: 70&c:a/b&i: a", JoinedHeaders | RepeatedHeader},
		"joined twice": {"Contact: ", "Expires: 5&Route: <sip:x>&Call-ID:hidden\r\nContact: ",
			JoinedHeaders | RepeatedHeader},
		"quotes that LF ends": {"Contact: ", "Contact: \"\ri: hidden\r\nX-a: \"", LoneCR | RepeatedHeader | BadAddress},
		"second one":          {"Contact: ", "Call-ID: hidden\r\nContact: ", RepeatedHeader},
		"second one, folded":  {"Contact: ", "Call-ID: \r\n hidden\r\nContact: ", RepeatedHeader},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(register, "Call-ID: 3848276298220188511@192.0.2.7\r\n", "", 1)
			first := "Call-ID: shown\r\n"
			text = strings.Replace(text, "Via: ", first+"Via: ", 1)
			m := parsed(t, strings.Replace(text, row.old, row.new, 1))
			if want := map[bool]string{true: "a", false: "hidden"}[name == "joined to number"]; string(m.CallID) != want {
				t.Errorf("Call-ID %q instead of %q", m.CallID, want)
			}
			if m.Malformed != row.fault {
				t.Errorf("%q instead of %q", m.Malformed, row.fault)
			}
			if string(m.First.CallID) != "shown" {
				t.Errorf("the first Call-ID is %q", m.First.CallID)
			}
		})
	}
	// What is within quotes hides nothing.
	for old, new := range map[string]string{
		"Contact: ": "Contact: \"\rCall-ID: x\r\" ", "To: ": "To: \"&i:x\" ", "x.org>;tag": "x.org;a=\">&i:x\">;tag",
		"2.7:5060;rport":                     "2.7:5060;x=\"\ri:x\r\";rport",
		"Contact: <sip:alice@192.0.2.7:5062": "Contact: <sip:alice@[\r\ni:x\r\n]:5062",
		"z9hG4bK-1":                          "z9hG4bK-1 (\r\ni:x\r\n)",
		"SIP/2.0/TCP 192.0.2.8":              "SIP/2.0/TCP [\ri:x\r]", "z9hG4bK-2": "z9hG4bK-2 (\r\n\r\n)",
		"pbx.example.org SIP": "pbx.example.org;x=\"\ri:x\r\" SIP",
	} {
		text := strings.Replace(register, "<sip:alice@pbx.example.org>;", "<sip:x@x.org>;", 1)
		m := parsed(t, strings.Replace(text, old, new, 1))
		if m.Malformed&^LoneCR != 0 || string(m.CallID) != "3848276298220188511@192.0.2.7" || string(m.From.Tag) != "a1" {
			t.Errorf("%q: %v, Call-ID %q, tag %q", new, m.Malformed, m.CallID, m.From.Tag)
		}
	}
	// What is honest holds & and colons, too.
	for _, honest := range []string{
		"Contact: <sip:a@b;x=1?Replaces=a&Call-ID:x>\r\n", "Contact: \"a&b:c\" <sip:a@b>\r\n", "Contact: sip:a&b:c@host\r\n",
		"Call-ID: a&b:c\r\n", "User-Agent: Bell & Howell: 1\r\n", "Alert-Info: <http://x/?a=1&b:2>;info=a&b:c\r\n",
	} {
		if m := parsed(t, strings.Replace(register, "Contact: ", honest+"X: ", 1)); m.Malformed.Has(JoinedHeaders) {
			t.Errorf("%q is no two headers", honest)
		}
	}
}

func TestMalformed(t *testing.T) {
	for name, row := range map[string]struct {
		old, new string
		want     Malformed
	}{
		"no CSeq":                  {"CSeq: 2 REGISTER\r\n", "", NoCSeq},
		"CSeq without number":      {"CSeq: 2", "CSeq: x", NoCSeq},
		"CSeq without method":      {"CSeq: 2 REGISTER", "CSeq: 2", NoCSeq},
		"CSeq too large":           {"CSeq: 2", "CSeq: 4294967296", NoCSeq},
		"CSeq of another method":   {"CSeq: 2 REGISTER", "CSeq: 2 INVITE", CSeqMismatch},
		"no Call-ID":               {"Call-ID:", "X-a:", NoCallID},
		"empty Call-ID":            {"Call-ID: 3848276298220188511@192.0.2.7", "Call-ID:  ", NoCallID},
		"no From":                  {"From:", "X-a:", NoFrom},
		"no To":                    {"To:", "X-a:", NoTo},
		"no Via":                   {"Via:", "X-a:", NoVia},
		"no method":                {"REGISTER sip", "sip", BadStartLine},
		"no version":               {" SIP/2.0\r\nVia", "\r\nVia", BadStartLine},
		"a later version":          {" SIP/2.0\r\nVia", " SIP/3.0\r\nVia", BadStartLine},
		"method out of bytes":      {"REGISTER sip", "REG\xffISTER sip", BadStartLine},
		"0xff in the user of To":   {"To: <sip:alice", "To: <sip:ali\xffce", BadAddress},
		"0xff in the Request-URI":  {"R sip:pbx", "R sip:p\xffx", BadAddress},
		"0xff in the Call-ID":      {"Call-ID: 38", "Call-ID: 3\xff8", CallIDControl},
		"tab in the Call-ID":       {"Call-ID: 38", "Call-ID: 3\t8", CallIDControl},
		"DEL in the Call-ID":       {"Call-ID: 38", "Call-ID: 3\x7f8", CallIDControl},
		"zero byte in the Call-ID": {"Call-ID: 38", "Call-ID: 3\x008", BadHeader | ZeroByte},
		"Call-ID of two lines":     {"Call-ID: 38", "Call-ID: 3\r\n 8", BadHeader},
		"no word in the Call-ID":   {"Call-ID: 38", "Call-ID: 3=8;", CallIDNotWord},
		"a line without a colon":   {"Contact", "nothing here\r\nContact", BadHeader},
		"a name of other bytes":    {"Contact", "n@me: x\r\nContact", BadHeader},
		"open bracket":             {"To: <sip:alice@pbx.example.org>", "To: <sip:alice@pbx.example.org", BadAddress},
		"no scheme":                {"To: <sip:", "To: <", BadAddress},
		"no host":                  {"To: <sip:alice@pbx.example.org>", "To: <sip:alice@>", BadAddress},
		"port too large":           {"<sip:alice@pbx.example.org>;tag", "<sip:alice@pbx:65536>;tag", BadAddress},
		"Via of nothing":           {"Via: SIP/2.0/UDP", "Via: UDP", BadHeader},
		"fine":                     {"REGISTER", "REGISTER", 0},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(register, row.old, row.new, 1)
			if name == "no Via" {
				text = strings.ReplaceAll(register, row.old, row.new)
			}
			if text == register && row.want != 0 {
				t.Fatal("the message was not changed")
			}
			if m := parsed(t, text); m.Malformed != row.want {
				t.Errorf("%q instead of %q", m.Malformed, row.want)
			}
		})
	}
}

// What stands behind a value that pjproject reads in parts makes it refuse the message, and what a phone writes in Latin-1,
// which Asterisk takes, does not.
func TestBytesBehindValues(t *testing.T) {
	const more = "Record-Route: <sip:proxy;lr>\r\nExpires: 60\r\nMin-SE: 90\r\nEvent: reg\r\nContent-Type: application/sdp\r\n" +
		"Proxy-Authorization: Digest realm=r\r\n"
	text := strings.Replace(register, "User-Agent", more+"User-Agent", 1)
	if m := parsed(t, text); m.Malformed != 0 {
		t.Fatalf("%q", m.Malformed)
	}
	for _, header := range []string{"Via", "From", "To", "Contact", "CSeq", "Max-Forwards", "Content-Length", "Authorization",
		"Proxy-Authorization", "Record-Route", "Expires", "Min-SE", "Event", "Content-Type"} {
		before, rest, _ := strings.Cut(text, "\r\n"+header+": ")
		value, rest, _ := strings.Cut(rest, "\r\n")
		for _, behind := range []string{"\xff", " \xff", ";\xff", ";x=\xff", "&\xff", "\x00", "\r\n \xff", ",", "=", ";x=\"y"} {
			m := parsed(t, before+"\r\n"+header+": "+value+behind+"\r\n"+rest)
			if !m.Malformed.Any(BadHeader | BadAddress) {
				t.Errorf("%s: %s%q: %q", header, value, behind, m.Malformed)
			}
		}
	}
	for old, new := range map[string]string{
		"\"Alice": "\"Ali\xe7e", "To: ": "To: M\xfcller ", "Yealink": "T\xe9l\xe9phone", "username=\"": "username=\"M\xfcller",
		"@pbx.example.org>;tag": "@pbx.example.org;x=\"\xe9\">;x=\"\xe9\";tag", "Via:": "Subject: \xe9t\xe9\r\nVia:",
		"192.0.2.7:5060": "192.0.2.7 : 5060", "branch=z9hG4bK-2": "branch=z9hG4bK-2 (b\xfcro)", "Digest username": "Basic username",
		"Contact: ": "Contact: <sip:a@b>, *, ", "alice@pbx.example.org>;": "alice:pass@[2001:db8::1];lr;x=[y]?h=v&i>;",
	} {
		if m := parsed(t, strings.Replace(text, old, new, 1)); m.Malformed != 0 {
			t.Errorf("%q: %q", new, m.Malformed)
		}
	}
}

// The byte 0xff in any place of any header changes nothing but what it stands in: the second sense is for that.
func TestByteOutsideUTF8AnywhereIsReadOver(t *testing.T) {
	for i := range len(register) - len("\r\n") {
		text := register[:i] + "\xff" + register[i:]
		var m Message
		if err := Parse([]byte(text), &m); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if i > len("REGISTER sip:pbx.example.org SIP/2.0\r\n") && (!m.MethodIs("REGISTER") || m.Truncated) {
			t.Fatalf("%q: %v, truncated: %v", text, m.Malformed, m.Truncated)
		}
	}
}

func TestWhatIsNoSIP(t *testing.T) {
	var m Message
	for _, text := range []string{"", "\r\n\r\n", "\r\n", "\x00\x00\x00\x00", "\x00", "   ",
		"\x00\x01\x00\x00\x21\x12\xa4\x42abcdefghijkl"} {
		if err := Parse([]byte(text), &m); err != ErrEmpty {
			t.Errorf("%q: %v", text, err)
		}
	}
	for _, text := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "jaK", "hello", "\x16\x03\x01\x02\x00\x01",
		"\x00a", ":"} {
		if err := Parse([]byte(text), &m); err != ErrNotSIP || m.Malformed != 0 || m.ContentLength != -1 {
			t.Errorf("%q: %v, %v", text, err, m.Malformed)
		}
	}
}

func TestTruncatedHeadMissesNothing(t *testing.T) {
	for i := len("REGISTER sip:pbx.example.org SIP/2.0"); i < len(register); i++ {
		m := parsed(t, register[:i])
		if m.Malformed.Any(NoVia|NoFrom|NoTo|NoCallID) || m.Truncated != (i < len(register)-1) {
			t.Fatalf("%q: %v, truncated: %v", register[:i], m.Malformed, m.Truncated)
		}
	}
}

func TestSpacesAtTheEndOfACallIDArePartOfIt(t *testing.T) {
	m := parsed(t, strings.Replace(register, "@192.0.2.7\r\nCSeq", "@192.0.2.7 \t\r\nCSeq", 1))
	if !bytes.HasSuffix(m.CallID, []byte("7 \t")) || m.Malformed != 0 {
		t.Errorf("Call-ID %q, %v", m.CallID, m.Malformed)
	}
}

func TestBoundsOfAMessage(t *testing.T) {
	many := strings.Replace(register, "Via:", strings.Repeat("a:\n", MaxHeaders)+"Via:", 1)
	if m := parsed(t, many); !m.Malformed.Has(TooManyHeaders) || m.ViaCount != 0 {
		t.Errorf("%v, %d Via", m.Malformed, m.ViaCount)
	}
	credentials := strings.Replace(register, "Via:", strings.Repeat("Authorization: Digest realm=x\n",
		MaxCredentials)+"Via:", 1)
	if m := parsed(t, credentials); m.Malformed != TooManyCredentials || len(m.Credentials()) != MaxCredentials {
		t.Errorf("%v, %d credentials", m.Malformed, len(m.Credentials()))
	}
	long := strings.Replace(register, "Via:", "Subject: "+strings.Repeat("x", MaxHead)+"\r\nVia:", 1)
	if m := parsed(t, long); !m.Truncated || m.HeadBytes != MaxHead {
		t.Errorf("truncated: %v, %d bytes", m.Truncated, m.HeadBytes)
	}
	// Nothing of one message is left in the next.
	var m Message
	for _, text := range []string{credentials, unauthorized, "OPTIONS sip:x SIP/2.0\r\n\r\n"} {
		if err := Parse([]byte(text), &m); err != nil {
			t.Fatal(err)
		}
	}
	fresh := parsed(t, "OPTIONS sip:x SIP/2.0\r\n\r\n")
	if a, b := fmt.Sprint(facts(&m)), fmt.Sprint(facts(fresh)); a != b {
		t.Errorf("%s instead of %s", a, b)
	}
}

func TestAddresses(t *testing.T) {
	for value, want := range map[string]string{
		`<sip:a@b>;tag=1`:   "sip|a|b|0|1|",
		`sip:a@b;tag=1`:     "sip|a|b|0|1|",
		`sip:a;x=1@b;tag=1`: "sip|a;x=1|b|0|1|",
		`sip:b`:             "sip||b|0||",
		`Alice <sips:a:secret@[2001:db8::1]:5061;lr>`:  "sips|a|2001:db8::1|5061||Alice",
		`"O'Brien; <x>" <sip:o@b;tag=no>;x;tag="1"`:    "sip|o|b|0|1|O'Brien; <x>",
		`"" sip:a@b;tag=1`:                             "sip|a|b|0|1|",
		`<tel:+49301234;phone-context=x>;tag=t`:        "tel|+49301234||0|t|",
		`<urn:service:sos>`:                            "urn|||0||",
		`<sip:100@1.1.1.1>;tag=6433396536`:             "sip|100|1.1.1.1|0|6433396536|",
		`"sipvicious"<sip:100@1.1.1.1>;tag=6433396536`: "sip|100|1.1.1.1|0|6433396536|sipvicious",
		`<sip:' or ''='@b or 1=1>`:                     "sip|' or ''='|b or 1=1|0||",
	} {
		var a Address
		rest, faults := parseAddress([]byte(value), &a)
		ok := len(rest) == 0 && faults == 0
		got := fmt.Sprintf("%s|%s|%s|%d|%s|%s", a.Scheme, a.User, a.Host, a.Port, a.Tag, a.Display)
		if got != want || ok == strings.Contains(value, " or ") {
			t.Errorf("%s: %s instead of %s, %v", value, got, want, ok)
		}
	}
}

// Nothing that prints shows credentials.
func TestCredentialsAreHidden(t *testing.T) {
	m := parsed(t, register)
	var log bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		slog.New(handler).Info("x", "a", m.Credentials()[0], "b", m.Credentials(), "c", &m.Credentials()[0])
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&log, verb, m.Credentials())
		fmt.Fprintf(&log, verb, &m.Credentials()[0])
		fmt.Fprintf(&log, verb, *m)
		fmt.Fprintf(&log, verb, m)
		fmt.Fprintf(&log, verb, struct{ M Message }{*m})
	}
	if err := json.NewEncoder(&log).Encode(m.Credentials()); err != nil {
		t.Fatal(err)
	}
	c := &m.Credentials()[0]
	for _, secret := range [][]byte{c.Username, c.Nonce, c.Response, c.CNonce, c.NC} {
		forms := []string{base64.StdEncoding.EncodeToString(secret)}
		for _, verb := range []string{"%s", "%v", "%x", "%#v"} {
			forms = append(forms, fmt.Sprintf(verb, secret))
		}
		for _, form := range forms {
			if strings.Contains(log.String(), form) {
				t.Errorf("%q is shown", form)
			}
		}
	}
	if !strings.Contains(log.String(), hiddenCredentials) || c.String() != hiddenCredentials {
		t.Error("nothing says that something is hidden")
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	var m Message
	for name, text := range map[string]string{
		"request": register, "answer": unauthorized, "garbage": "GET / HTTP/1.1\r\n\r\n",
		"malformed": strings.ReplaceAll(register, ": ", " "), "joined": strings.ReplaceAll(register, "\r\nTo:", "&To:"),
	} {
		b := []byte(text)
		if n := testing.AllocsPerRun(100, func() { _ = Parse(b, &m) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

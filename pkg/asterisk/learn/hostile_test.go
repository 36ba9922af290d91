package learn

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// detail is the reply about one endpoint.
func detail(name, rewrite string, more ...string) string {
	items := []string{"Event: EndpointDetail\nObjectType: endpoint\nObjectName: " + name + "\nRewriteContact: " +
		rewrite,
		"Event: AuthDetail\nObjectType: auth\nObjectName: " + name + "\nPassword: hunter2\nUsername: " + name}
	return list("EndpointDetailComplete", append(items, more...)...)
}

func endpointList(names ...string) string {
	var items []string
	for _, n := range names {
		items = append(items, "Event: EndpointList\nObjectType: endpoint\nObjectName: "+n+"\nAuths: "+n+"\nContacts: ")
	}
	return list("EndpointListComplete", items...)
}

// tree is a reply of DBGetTree; the values are complete JSON texts.
func tree(values ...string) string {
	var b strings.Builder
	b.WriteString("Response: Success\r\nActionID: q1\r\nEventList: start\r\nMessage: Result will follow\r\n\r\n")
	for i, v := range values {
		fmt.Fprintf(&b, "Event: DBGetTreeResponse\r\nKey: /registrar/contact/x;@%032x\r\nVal: %s\r\nActionID: "+
			"q1\r\n\r\n", i, v)
	}
	fmt.Fprintf(&b, "Event: DBGetTreeComplete\r\nActionID: q1\r\nEventList: Complete\r\nListItems: %d\r\n\r\n",
		len(values))
	return b.String()
}

func stored(endpoint, uri string) string {
	return `{"via_addr":"203.0.113.250","path":"","endpoint":"` + endpoint + `","uri":"` + uri +
		`","user_agent":"x","expiration_time":"9999999999"}`
}

func identifyItem(endpoint, match string) string {
	return "Event: IdentifyDetail\nObjectType: identify\nObjectName: " + endpoint + "-ident\nMatch: " + match +
		"\nEndpoint: " + endpoint
}

func TestWhichAddressOfAContactCounts(t *testing.T) {
	for _, c := range []struct {
		name, rewrite, value string // rewrite "": the endpoint is not known
		learned              bool
		skipped              Skipped
	}{
		{"rewritten, public", "true", stored("6001", "sip:6001@203.0.113.7:5060"), true, Skipped{}},
		{"rewritten, from the office", "true", stored("6001", "sip:6001@192.168.1.7:5060"), true, Skipped{}},
		{"rewritten, IPv6", "true", stored("6001", "sip:6001@[2001:db8::7]:5060;x-ast-orig-host=[fd00::1]:5060"), true,
			Skipped{}},
		{"claimed: rewrite_contact=no", "false", stored("6001", "sip:6001@203.0.113.7"), false, Skipped{Claimed: 1}},
		{"unknown endpoint, public", "", stored("6001", "sips:6001@203.0.113.7"), true, Skipped{}},
		{"unknown endpoint, inside of a NAT", "", stored("6001", "sip:6001@192.168.1.7"), false, Skipped{Private: 1}},
		{"unknown endpoint, carrier's NAT", "", stored("6001", "sip:6001@100.64.3.4"), false, Skipped{Private: 1}},
		{"unknown endpoint, unique local", "", stored("6001", "sip:6001@[fd00::7]"), false, Skipped{Private: 1}},
		{"name", "true", stored("6001", "sip:6001@victim.example.net"), false, Skipped{Named: 1}},
		{"loopback", "true", stored("6001", "sip:6001@127.0.0.1"), false, Skipped{Unusable: 1}},
		{"mapped loopback", "true", stored("6001", "sip:6001@[::ffff:127.0.0.1]"), false, Skipped{Unusable: 1}},
		{"unspecified", "true", stored("6001", "sip:6001@0.0.0.0"), false, Skipped{Unusable: 1}},
		{"multicast", "true", stored("6001", "sip:6001@224.0.1.75"), false, Skipped{Unusable: 1}},
		{"link-local", "true", stored("6001", "sip:6001@[fe80::1]"), false, Skipped{Unusable: 1}},
		{"broadcast", "true", stored("6001", "sip:6001@255.255.255.255"), false, Skipped{Unusable: 1}},
		{"behind a proxy", "true", strings.Replace(stored("6001", "sip:6001@203.0.113.7"), `"path":""`,
			`"path":"<sip:203.0.113.1;lr>"`, 1), false, Skipped{Proxied: 1}},
		{"expired last week", "true", strings.Replace(stored("6001", "sip:6001@203.0.113.7"), "9999999999",
			fmt.Sprint(recordedAt().Add(-7*24*time.Hour).Unix()), 1), false, Skipped{Expired: 1}},
		{"expired a minute ago, by another clock", "true",
			strings.Replace(stored("6001", "sip:6001@203.0.113.7"), "9999999999",
				fmt.Sprint(recordedAt().Add(-time.Minute).Unix()), 1), true, Skipped{}},
		{"two uri keys", "true", strings.Replace(stored("6001", "sip:6001@203.0.113.7"), `"path":""`,
			`"uri":"sip:x@8.8.8.8"`, 1), false, Skipped{Malformed: 1}},
		{"two uri keys, one escaped", "true",
			strings.Replace(stored("6001", "sip:6001@203.0.113.7"), `"path":""`, `"\u0075ri":"sip:x@8.8.8.8"`, 1),
			false, Skipped{Malformed: 1}},
		{"uri in capitals only", "true", strings.Replace(stored("6001", "sip:6001@203.0.113.7"), `"uri"`, `"URI"`, 1),
			false, Skipped{Malformed: 1}},
		{"nested", "true", strings.Replace(stored("6001", "sip:6001@203.0.113.7"), `"x"`, `{"uri":"sip:x@8.8.8.8"}`, 1),
			false, Skipped{Malformed: 1}},
		{"two objects", "true", stored("6001", "sip:6001@203.0.113.7") + "{}", false, Skipped{Malformed: 1}},
		{"cut off", "true", stored("6001", "sip:6001@203.0.113.7")[:60], false, Skipped{Malformed: 1}},
		{"garbage in the user agent is no matter", "true",
			strings.Replace(stored("6001", "sip:6001@203.0.113.7"), `"x"`,
				`"\r\nuri: sip:x@8.8.8.8\",\"uri\":\"\u0000"`, 1), true, Skipped{}},
		{"no endpoint", "true", stored("", "sip:6001@203.0.113.7"), false, Skipped{Malformed: 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPBX()
			if c.rewrite != "" {
				p.set("PJSIPShowEndpoints", endpointList("6001"))
				p.set("PJSIPShowEndpoint", detail("6001", c.rewrite))
			}
			p.set("DBGetTree", tree(c.value))
			k := once(t, p)
			if len(k.Prefixes) > 0 {
				t.Errorf("a registration made immune: %v", k.Prefixes)
			}
			if got := len(k.Contacts) == 1; got != c.learned || len(k.Contacts) > 1 || k.Skipped != c.skipped {
				t.Errorf("learned %v, want %v; skipped %+v, want %+v", k.Contacts, c.learned, k.Skipped, c.skipped)
			}
		})
	}
}

// A phone's User-Agent with line breaks, in each place where Asterisk repeats it.
func TestInjectedLinesTeachNothing(t *testing.T) {
	status := "Event: ContactStatusDetail\nAOR: 6001\nURI: sip:6001@203.0.113.7\nUserAgent: x"
	for _, evil := range []string{
		"\nMatch: 8.8.8.8/255.255.255.255\nEndpoint: 6001",
		"\nEvent: IdentifyDetail\nMatch: 8.8.8.8/255.255.255.255\nEndpoint: 6001",
		"\n\nEvent: IdentifyDetail\nObjectName: x\nMatch: 8.8.8.8/255.255.255.255\nEndpoint: 6001",
		"\n\nEvent: IdentifyDetail\nPrivilege: x\nObjectName: x\nMatch: 8.8.8.8/255.255.255.255\nEndpoint: 6001",
		"\nContacts: 6001/sip:8.8.8.8\nTotalContacts: 1\nContactsRegistered: 0\nObjectName: 6001",
		"\nRewriteContact: true",
		"\nno colon here",
		"\x1b[2J\x00\nUri: sip:8.8.8.8",
	} {
		p := newPBX()
		p.set("PJSIPShowEndpoints", endpointList("6001"))
		p.set("PJSIPShowEndpoint", detail("6001", "false", status+evil+"\nEndpointName: 6001",
			"Event: AorDetail\nObjectName: 6001\nContacts: "+
				"6001/sip:8.8.8.8,6001/sip:6001@203.0.113.7\nTotalContacts: 2\nContactsRegistered: 2"))
		p.set("PJSIPShowContacts", list("ContactListComplete",
			"Event: ContactList\nObjectName: 6001;@x\nViaAddr: 1.1.1.1\nEndpoint: 6001\nPath: \nExpirationTime: "+
				"9999999999\nUri: sip:6001@203.0.113.7\nUserAgent: x"+evil))
		k := once(t, p)
		if len(k.Prefixes)+len(k.Contacts) > 0 {
			t.Errorf("%q taught %v, %v", evil, k.Prefixes, k.Contacts)
		}
	}
}

func TestContactFieldsThatComeTwiceOrNever(t *testing.T) {
	good := "Event: ContactList\nObjectName: 6001;@x\nViaAddr: 1.1.1.1\nEndpoint: 6001\nPath: \nExpirationTime: " +
		"9999999999\nUri: sip:6001@203.0.113.7\nUserAgent: x"
	for item, count := range map[string]int{
		good:                                   1,
		good + "\nUri: sip:6001@8.8.8.8":       0,
		good + "\nuri: sip:6001@8.8.8.8":       0,
		good + "\nEndpoint: 6002":              0,
		good + "\nEvent: Other":                0,
		strings.Replace(good, "Uri", "Url", 1): 0,
		strings.Replace(good, "Event: ContactList", "Event: ContactLis", 1): 0,
		// the administrator's, which come by another way
		strings.Replace(good, "9999999999", "0", 1): 0,
	} {
		p := newPBX()
		p.set("PJSIPShowContacts", list("ContactListComplete", item))
		if k := once(t, p); len(k.Contacts) != count {
			t.Errorf("%q: %v", item, k.Contacts)
		}
	}
}

func TestWideMatchesAreReportedNotLearned(t *testing.T) {
	p := newPBX()
	p.set("PJSIPShowEndpoints", endpointList("itsp"))
	p.set("PJSIPShowEndpoint", detail("itsp", "false", identifyItem("itsp",
		"0.0.0.0/0.0.0.0,10.0.0.0/255.0.0.0,203.0.113.0/255.255.255.0,198.51.0.0/255.255.0.0,!203.0.113.66/255.255.255.255,::/::,2001:db8::/ffff:ffff::,127.0.0.1/255.255.255.255,1.2.3.4/255.0.255.0,evil\x1b[2J/32")))
	k := once(t, p)
	equal(t, "Prefixes", k.Prefixes, "198.51.0.0/16 trunk itsp", "2001:db8::/32 trunk itsp",
		"203.0.113.0/24 trunk itsp")
	want := []string{
		`trunk itsp: match 0.0.0.0/0 is wider than /16`,
		`trunk itsp: match 10.0.0.0/8 is wider than /16`,
		`trunk itsp: match ::/0 is wider than /32`,
		`trunk itsp: match 127.0.0.1/32 is no address of a trunk`,
		`trunk itsp: match "1.2.3.4/255.0.255.0": netmask 255.0.255.0 has holes`,
		`trunk itsp: match "evil\x1b[2J/32" is not an address`,
	}
	if got := strings.Join(k.Refused, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("refused:\n%s", got)
	}
}

func TestContactsThatTheAdministratorWrote(t *testing.T) {
	for _, c := range []struct {
		name, aor string
		prefixes  []string
		refused   int
	}{
		{"fixed", "Contacts: itsp/sip:203.0.113.5:5060,itsp/sip:203.0.113.6\nTotalContacts: 2\nContactsRegistered: 0",
			[]string{"203.0.113.5/32 trunk itsp", "203.0.113.6/32 trunk itsp"}, 0},
		{"mixed with a registration", "Contacts: itsp/sip:203.0.113.5:5060,itsp/sip:8.8.8.8\nTotalContacts: " +
			"2\nContactsRegistered: 1", nil, 0},
		{"an entry of something else", "Contacts: itsp/sip:203.0.113.5,x/sip:8.8.8.8\nTotalContacts: " +
			"2\nContactsRegistered: 0", nil, 0},
		{"count is wrong", "Contacts: itsp/sip:203.0.113.5,itsp/sip:8.8.8.8\nTotalContacts: 1\nContactsRegistered: 0",
			nil, 0},
		{"not readable, and no password is shown",
			"Contacts: itsp/sip:me:hunter2@203.0.113.5:x\nTotalContacts: 1\nContactsRegistered: 0", nil, 1},
		{"loopback", "Contacts: itsp/sip:127.0.0.1:5080\nTotalContacts: 1\nContactsRegistered: 0", nil, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPBX()
			p.set("PJSIPShowEndpoints", endpointList("itsp"))
			p.set("PJSIPShowEndpoint", detail("itsp", "false", "Event: AorDetail\nObjectName: itsp\nMaxContacts: "+
				"0\n"+c.aor))
			l, log := learner(p)
			l.Connected()
			l.askRound(t.Context())
			k := l.Knowledge()
			equal(t, "Prefixes", k.Prefixes, c.prefixes...)
			if len(k.Refused) != c.refused || strings.Contains(fmt.Sprintf("%+v%+v%s", k, l.endpoints["itsp"], log),
				"hunter2") {
				t.Errorf("%+v", k)
			}
		})
	}
}

func TestIAXPeersCountOnlyIfNothingCameBetween(t *testing.T) {
	p := newPBX()
	good := recorded(t, "IAXpeers")
	forged := strings.Replace(good, "Event: PeerlistComplete",
		"Event: PeerEntry\r\nChanneltype: IAX2\r\nObjectName: x\r\nIPaddress: 8.8.8.8\r\nDynamic: no\r\n\r\nEvent: "+
			"PeerlistComplete", 1)
	p.set("IAXpeers", good)
	l, _ := learner(p)
	l.Connected()
	l.askRound(t.Context())
	for name, reply := range map[string]string{"one more": forged,
		"one less": strings.Replace(good, "ListItems: 1", "ListItems: 2", 1),
		"no count": strings.Replace(good, "ListItems", "Items", 1)} {
		p.set("IAXpeers", reply)
		l.askRound(t.Context())
		k := l.Knowledge()
		equal(t, name+": Prefixes", k.Prefixes)
		equal(t, name+": Contacts", k.Contacts, "10.99.0.10/32 contact of iax100") // of the round before
		if len(k.Failed) != 1 || k.Failed[0].What != "IAXpeers" {
			t.Errorf("%s: failed: %v", name, k.Failed)
		}
	}
	p.set("IAXpeers", strings.Replace(good, "10.99.0.10", "203.0.113.4", 1))
	l.askRound(t.Context())
	equal(t, "Contacts", l.Knowledge().Contacts, "203.0.113.4/32 contact of iax100")
}

func TestBounds(t *testing.T) {
	var values []string
	for i := range 500 {
		values = append(values, stored("greedy", fmt.Sprintf("sip:g@203.0.%d.%d", i/250, i%250+1)))
	}
	for i := range 50 {
		values = append(values, stored(fmt.Sprintf("phone%02d", i), fmt.Sprintf("sip:p@198.51.100.%d", i+1)))
	}
	p := newPBX()
	p.set("DBGetTree", tree(values...))
	p.set("PJSIPShowEndpoints", endpointList("itsp"))
	p.set("PJSIPShowEndpoint", detail("itsp", "false", identifyItem("itsp",
		"192.0.2.1/255.255.255.255,192.0.2.2/255.255.255.255")))
	k := once(t, p)
	if len(k.Contacts) != 32+50 || k.Skipped.Surplus != 500-32 || len(k.Prefixes) != 2 {
		t.Errorf("%d contacts, %+v, %v", len(k.Contacts), k.Skipped, k.Prefixes)
	}
	k = once(t, p, func(c *Config) { c.MaxPrefixes = 10 })
	if len(k.Contacts) != 8 || len(k.Prefixes) != 2 {
		t.Errorf("bound of 10: %d contacts, %v", len(k.Contacts), k.Prefixes)
	}
	k = once(t, p, func(c *Config) { c.MaxPrefixes = 1 })
	if len(k.Contacts) != 0 || len(k.Prefixes) != 1 || len(k.Refused) != 1 {
		t.Errorf("bound of 1: %+v", k)
	}
	// What is the same for Asterisk is the same here, whatever the order of maps.
	for range 20 {
		if again := once(t, p); !again.equalTo(once(t, p)) {
			t.Fatal("two rounds over the same answers differ")
		}
	}
}

func TestAnOfficeIsOneContact(t *testing.T) {
	p := newPBX()
	p.set("DBGetTree", tree(stored("6003", "sip:c@203.0.113.7:1"), stored("6001", "sip:a@203.0.113.7:2"),
		stored("6001", "sip:a@203.0.113.7:3"),
		stored("6002", "sip:b@203.0.113.7:4"), stored("6002", "sip:b@203.0.113.7:5")))
	k := once(t, p)
	equal(t, "Contacts", k.Contacts, "203.0.113.7/32 contact of 6001 and 2 more")
	if n := k.ThroughOnePort[netip.MustParsePrefix("203.0.113.7/32")]; n != 1 {
		t.Errorf("%d accounts through one port", n)
	}
}

// However often an account is registered through a port, it is one; and so is one without a port.
func TestAccountsThroughOnePortAreCounted(t *testing.T) {
	p := newPBX()
	var items []string
	for i := range 30 {
		name := fmt.Sprint(6000 + i)
		items = append(items, stored(name, "sip:a@203.0.113.9:5060"), stored(name, "sip:b@203.0.113.9:5060;x=1"),
			stored(name, fmt.Sprint("sip:a@203.0.113.8:", 1000+i)))
	}
	for range 30 {
		items = append(items, stored("6100", "sip:a@203.0.113.7:5060"))
	}
	items = append(items, stored("6101", "sip:a@203.0.113.6"))
	p.set("DBGetTree", tree(items...))
	k := once(t, p)
	for a, want := range map[string]int{"203.0.113.9/32": 30, "203.0.113.8/32": 1, "203.0.113.7/32": 1,
		"203.0.113.6/32": 1} {
		if n := k.ThroughOnePort[netip.MustParsePrefix(a)]; n != want {
			t.Errorf("%s: %d accounts through one port, want %d", a, n, want)
		}
	}
}

func TestURIs(t *testing.T) {
	for in, out := range map[string]string{
		"sip:10.99.0.50:5060": "10.99.0.50", "SIP:a@203.0.113.7": "203.0.113.7",
		"sips:a:pw@[2001:db8::1]:5061;transport=tls": "2001:db8::1",
		"sip:a;b=c@203.0.113.7;d=e?f=g":              "203.0.113.7", "sip:[::ffff:203.0.113.7]": "203.0.113.7",
		"sip:SIP.Example.net.:5060;lr": "sip.example.net",
		"sip:a%40b@203.0.113.7":        "203.0.113.7",
		"sip:6100@10.99.0.10:48738;transport=WS;x-ast-orig-host=10.99.0.10:48738": "10.99.0.10",
		"": "", "sip:": "", "tel:+49301234": "", "sip:@203.0.113.7": "", "sip:a@b@203.0.113.7": "",
		"sip:a@203.0.113.7;x=y@8.8.8.8":   "",
		"sip:a@203.0.113.7;maddr=8.8.8.8": "", "sip:a@203.0.113.7;MADDR=8.8.8.8": "",
		"sip:a@203.0.113.7;%6daddr=8.8.8.8": "",
		"sip:a@203.0.113.7?maddr=x":         "", "sip:a@203.0.113.7:0": "", "sip:a@203.0.113.7:65536": "",
		"sip:a@203.0.113.7:": "", "sip:a@203.0.113.7:5060x": "",
		"sip:a@[203.0.113.7]": "", "sip:a@2001:db8::1": "", "sip:a@[fe80::1%eth0]": "", "sip:a@[::1": "",
		"sip:a@::1]": "", "sip:a@[::1]x": "",
		"sip:a@203.0.113.7\r\nUri: sip:8.8.8.8": "", "sip:a b@203.0.113.7": "", "<sip:a@203.0.113.7>": "",
		"sip:a,sip:b@203.0.113.7": "",
		"sip:a@0x7f000001":        "", "sip:a@10.1": "", "sip:a@010.0.0.1": "", "sip:a@203.0.113.7\x00": "",
		"sip:ä@203.0.113.7": "",
		"sip:" + strings.Repeat("a", 2000) + "@203.0.113.7": "",
	} {
		got, ok := parseURI(in)
		text := got.name
		if got.addr.IsValid() {
			text = got.addr.String()
		}
		if ok != (out != "") || ok && text != out {
			t.Errorf("parseURI(%.60q) = %q, %v; want %q", in, text, ok, out)
		}
	}
}

func TestMatches(t *testing.T) {
	for in, out := range map[string]string{
		"10.99.0.50/255.255.255.255": "10.99.0.50/32", "10.99.0.50/32": "10.99.0.50/32", "10.99.0.50": "10.99.0.50/32",
		"10.98.1.2/255.255.255.0": "10.98.1.0/24", "fd99::50/ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": "fd99::50/128",
		"fd99::1/48":          "fd99::/48",
		"::ffff:10.0.0.1/128": "10.0.0.1/32", "::ffff:10.0.0.1/ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00": "10.0.0.0/24",
		"10.0.0.0/15": "", "2001:db8::/31": "", "::ffff:0.0.0.0/80": "", "::ffff:0.0.0.0/96": "", "10.0.0.1/33": "",
		"10.0.0.1/": "", "10.0.0.1/-1": "",
		"10.0.0.1/+8": "", "10.0.0.1/0032": "", "10.0.0.1/255.0.255.0": "", "10.0.0.1/ffff::": "",
		"fe80::1%eth0/128": "", "x/32": "", "10.0.0.1/32/32": "",
		"0.0.0.0/32": "", "::/128": "", "224.0.0.1/32": "",
	} {
		p, err := parseMatch(in)
		if (err == nil) != (out != "") || err == nil && p.String() != out {
			t.Errorf("parseMatch(%q) = %v, %v; want %q", in, p, err, out)
		}
	}
}

func FuzzURI(f *testing.F) {
	for _, s := range []string{"sip:6001@[fd99::10]:55613", "sip:6001@10.99.0.10:34612;transport=TLS",
		"sips:a:b@x.example.net;lr?q=r", "sip:a@1.2.3.4;maddr=8.8.8.8", "sip:10.1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := parseURI(s)
		if !ok {
			return
		}
		if got.addr.IsValid() == (got.name != "") || got.addr.Zone() != "" || got.addr.Is4In6() {
			t.Fatalf("%q: %+v", s, got)
		}
		host := got.name
		if got.addr.Is6() {
			host = "[" + got.addr.String() + "]"
		} else if got.addr.Is4() {
			host = got.addr.String()
		}
		again, ok := parseURI("sip:x@" + host)
		if port := got.port; port != 0 {
			if again.port != 0 {
				t.Fatalf("%q: port %d came from nowhere", s, again.port)
			}
			again, ok = parseURI(fmt.Sprintf("sip:x@%s:%d", host, port))
		}
		if !ok || again != got {
			t.Fatalf("%q: %+v, then %+v", s, got, again)
		}
		// The host must stand in the text itself (IPv6 has many spellings).
		if !got.addr.Is6() && !strings.Contains(strings.ToLower(s), host) && !strings.Contains(s, "[") {
			t.Fatalf("%q: host %q came from nowhere", s, host)
		}
	})
}

func FuzzMatches(f *testing.F) {
	f.Add("10.99.0.50/255.255.255.255,10.98.0.0/255.255.255.0,fd99::50/ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
	f.Add("!10.0.0.0/8,0.0.0.0/0,::ffff:1.2.3.4/96")
	f.Fuzz(func(t *testing.T, s string) {
		prefixes, refused := parseMatches(s)
		for _, p := range prefixes {
			if p != p.Masked() || p.Bits() < minPrefixBits(p.Addr()) || !isUsable(p.Addr()) || p.Addr().Is4In6() {
				t.Fatalf("%q: %v", s, p)
			}
		}
		for _, why := range refused {
			if strings.ContainsFunc(why, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Fatalf("%q: %q", s, why)
			}
		}
		if strings.HasPrefix(s, "!") && !strings.Contains(s, ",") && len(prefixes) > 0 {
			t.Fatalf("%q is an exception", s)
		}
	})
}

func FuzzContact(f *testing.F) {
	f.Add(stored("6001", "sip:6001@203.0.113.7"))
	f.Add(`{"uri":"sip:a@1.2.3.4","uri":"sip:a@8.8.8.8","endpoint":"x"}`)
	f.Add(`{"uri":["sip:a@1.2.3.4"],"endpoint":"x"}`)
	f.Fuzz(func(t *testing.T, s string) {
		c, ok := parseContact(s)
		if !ok {
			return
		}
		var all map[string]string
		if err := json.Unmarshal([]byte(s), &all); err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		if host, ok := parseURI(all["uri"]); !ok || host != c.address || c.endpoint == "" ||
			c.endpoint != all["endpoint"] || c.viaProxy != (all["path"] != "") {
			t.Fatalf("%q: %+v", s, c)
		}
	})
}

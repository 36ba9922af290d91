package nftrace

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/ringwall/ringwall/pkg/netns/netnstest"
)

var sip = []Port{{unix.IPPROTO_UDP, 5060}, {unix.IPPROTO_TCP, 5060}}

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, t := range texts {
		list = append(list, netip.MustParsePrefix(t))
	}
	return list
}

// What is so for each address of a network is so for the network; the rest is not said. And what a NAT may lead past
// the input hook, no rule there drops for certain.
func TestWhatIsNotCertainIsNotSaid(t *testing.T) {
	const chain = "chain %s { type filter hook %s priority 0; %s }; "
	input := func(rules string) string {
		return "table inet a { " + fmt.Sprintf(chain, "i", "input", rules) + " };"
	}
	for name, row := range map[string]struct {
		rules   string
		source  string
		forward bool
		want    string // the chain that drops it
	}{
		"a network":         {input("ip saddr 192.0.2.0/24 drop;"), "192.0.2.0/24", false, "inet a i"},
		"a wider one":       {input("ip saddr 192.0.0.0/16 drop;"), "192.0.2.0/24", false, "inet a i"},
		"a part of it":      {input("ip saddr 192.0.2.0/25 drop;"), "192.0.2.0/24", false, ""},
		"its first address": {input("ip saddr 192.0.2.0 drop;"), "192.0.2.0/24", false, ""},
		"all but a part": {
			input("ip saddr 192.0.2.128/25 accept; drop;"),
			"192.0.2.0/24", false, "",
		},
		"all but another one": {
			input("ip saddr 198.51.100.0/24 accept; drop;"),
			"192.0.2.0/24", false, "inet a i",
		},
		"a range with it": {
			input("ip saddr 192.0.1.0-192.0.3.7 drop;"),
			"192.0.2.0/24", false, "inet a i",
		},
		"a range with a part": {input("ip saddr 192.0.1.0-192.0.2.7 drop;"), "192.0.2.0/24", false, ""},
		"others than it":      {input("ip saddr != 192.0.2.0/24 drop;"), "192.0.2.0/24", false, ""},
		"others than a part":  {input("ip saddr != 192.0.2.0/25 drop;"), "192.0.2.0/24", false, ""},
		"a network of IPv6": {
			input("ip6 saddr 2001:db8::/32 drop;"),
			"2001:db8:7::/48", false, "inet a i",
		},
		"a set": {
			input("ip saddr { 192.0.2.0/24, 192.0.4.0/24 } drop;"),
			"192.0.2.0/24", false, "",
		},
		"an interval of a set": {
			input("ip saddr { 192.0.2.0/24 } drop;"),
			"192.0.2.9/32", false, "inet a i",
		},
		"before an interval of a set": {input("ip saddr { 192.0.2.0/24 } drop;"), "192.0.1.255/32", false, ""},
		"after an interval of a set": {
			input("ip saddr { 192.0.2.0/24, 192.0.4.0/24 } drop;"),
			"192.0.3.0/32", false, "",
		},
		"not in a set": {
			input("ip saddr != { 192.0.2.8, 192.0.2.9 } drop;"),
			"192.0.2.7/32", false, "inet a i",
		},
		"perhaps a return, and nothing behind": {
			"table inet a { chain j { iifname docker0 return; tcp dport 8081 accept; }; " +
				fmt.Sprintf(chain, "i", "input", "jump j; ip saddr 192.0.2.7 drop;") + " };",
			"192.0.2.7/32", false, "inet a i",
		},
		"perhaps a return before the drop": {
			"table inet a { chain j { iifname docker0 return; drop; }; " +
				fmt.Sprintf(chain, "i", "input", "jump j;") + " };",
			"192.0.2.7/32", false, "",
		},
		"after what many machines get": {
			input("ip daddr 255.255.255.255 accept; ip daddr 224.0.0.0/4 accept; meta pkttype multicast accept; " +
				"ip daddr 224.0.0.251 accept; ip saddr 192.0.2.7 drop;"),
			"192.0.2.7/32", false, "inet a i",
		},
		"IPv6, after what many get": {
			input("ip6 daddr ff00::/8 accept; ip6 daddr ff02::1 accept; ip6 saddr 2001:db8::7 drop;"),
			"2001:db8::7/128", false, "inet a i",
		},
		"IPv6, after what may be the machine": {
			input("ip6 daddr fe80::/10 accept; ip6 saddr 2001:db8::7 drop;"), "2001:db8::7/128", false, "",
		},
		"unless it is for the machine": {
			input("fib daddr type local return; ip saddr 192.0.2.7 drop;"), "192.0.2.7/32", false, "",
		},
		"after what comes from a port to another": {
			input("@th,0,32 0x430044 accept; ip saddr 192.0.2.7 drop;"), "192.0.2.7/32", false, "inet a i",
		},
		"after what may come from a port": {
			input("@th,0,32 0x4313c4 accept; ip saddr 192.0.2.7 drop;"), "192.0.2.7/32", false, "",
		},
		"if it is for the machine": {
			input("fib daddr type local ip saddr 192.0.2.7 drop;"), "192.0.2.7/32", false, "inet a i",
		},
		"after what may be the machine": {
			input("ip daddr 10.0.0.0/8 accept; ip saddr 192.0.2.7 drop;"), "192.0.2.7/32", false, "",
		},
		"after what is not for many": {
			input("ip daddr != 224.0.0.0/4 accept; ip saddr 192.0.2.7 drop;"), "192.0.2.7/32", false, "",
		},
		"after a connection whose address was changed": {
			input("ct status dnat accept; ct state established,related accept; ip saddr 192.0.2.7 drop;"),
			"192.0.2.7/32", false, "inet a i",
		},
		"after a mark that a rule sets": {
			input("meta mark set 3; meta mark and 2 != 2 accept; ip saddr 192.0.2.7 drop;"),
			"192.0.2.7/32", false, "inet a i",
		},
		"after a mark that is not known": {
			input("meta mark and 2 != 2 accept; ip saddr 192.0.2.7 drop;"), "192.0.2.7/32", false, "",
		},
		"the packets pass through": {input("drop;"), "192.0.2.7/32", true, ""},
		"of an address that others ignore": {
			input("policy drop; iif lo accept; ct state established accept;"),
			"127.0.0.0/8", false, "inet a i",
		},
		"passing through, and before": {
			"table inet a { " + fmt.Sprintf(chain, "p", "prerouting", "ip saddr 192.0.2.7 drop;") + " };",
			"192.0.2.7/32", true,
			"inet a p",
		},
		"a NAT that may lead past it": {
			"table ip n { chain p { type nat hook prerouting priority -100; fib daddr type local jump d; }; chain d { " +
				"udp dport 5060 dnat to 172.17.0.2; tcp dport 5060 dnat to 172.17.0.2; }; };" + input("policy drop;"),
			"192.0.2.7/32", false, "",
		},
		"a NAT of one port": {
			"table ip n { chain p { type nat hook prerouting priority -100; tcp dport 5060 dnat to 172.17.0.2; }; };" +
				input("policy drop;"), "192.0.2.7/32", false, "",
		},
		"a NAT of other ports": {
			"table ip n { chain p { type nat hook prerouting priority -100; tcp dport 8080 dnat to 172.17.0.2; }; };" +
				input("policy drop;"), "192.0.2.7/32", false, "inet a i",
		},
		"a table that is the asker's": {
			"table inet own { " + fmt.Sprintf(chain, "i", "input", "drop;") + " };", "192.0.2.7/32", false, "",
		},
		"an endless way": {"table inet a { chain j { meta mark 1 goto k; ip saddr 192.0.2.7 drop; }; chain k { }; " +
			fmt.Sprintf(chain, "i", "input", strings.Repeat("meta mark 1 jump j; ", maxChains)+"drop;") + " };",
			"192.0.2.7/32", false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ns := netnstest.New(t)
			script := row.rules
			if i := strings.Index(script, "chain k"); i >= 0 { // used before it is there
				script = strings.Replace(strings.Replace(script, "chain k { }; ", "", 1), "chain j",
					"chain k { }; chain j", 1)
			}
			netnstest.NFT(t, ns, script)
			drops, err := FindDrops(Question{NetNS: ns.FD(), Sources: prefixes(row.source), Ports: sip,
				Ignore:  []string{"own"},
				Forward: row.forward})
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if len(drops) > 0 {
				got = drops[0].Chain
			}
			if got != row.want {
				t.Errorf("dropped by %q, want %q", got, row.want)
			}
		})
	}
}

// Many rules, a large set and many sources take a bounded time, and nothing is made up where that ends.
func TestALookAtManyRulesEnds(t *testing.T) {
	ns := netnstest.New(t)
	var script strings.Builder
	script.WriteString("table inet a { set s { type ipv4_addr; elements = { ")
	for i := range 20_000 {
		fmt.Fprintf(&script, "10.%d.%d.7, ", i/256, i%256)
	}
	script.WriteString("192.0.2.1 }; }; chain i { type filter hook input priority 0; ")
	for i := range 2000 {
		fmt.Fprintf(&script, "ip saddr 198.51.%d.%d drop; ", i/256, i%256)
	}
	script.WriteString("ip saddr @s drop; }; };")
	netnstest.NFT(t, ns, script.String())
	var sources []netip.Prefix
	for i := range 3 * maxSources {
		sources = append(sources, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), 32))
	}
	began := time.Now()
	drops, err := FindDrops(Question{NetNS: ns.FD(), Sources: sources, Ports: sip})
	if err != nil || len(drops) != 1 || drops[0].Source != sources[1] {
		t.Errorf("%v, %v", drops, err)
	}
	t.Logf("%d sources and 2,000 rules took %v", maxSources, time.Since(began))
}

func TestNobodyAsksAboutNothing(t *testing.T) {
	ns := netnstest.New(t)
	netnstest.NFT(t, ns, "table inet a { chain i { type filter hook input priority 0; policy drop; }; };")
	for _, q := range []Question{{Ports: sip}, {Sources: prefixes("192.0.2.7/32")}} {
		q.NetNS = ns.FD()
		if drops, err := FindDrops(q); err != nil || len(drops) > 0 {
			t.Errorf("%+v: %v, %v", q, drops, err)
		}
	}
}

// multiport is what iptables -m multiport makes, as fail2ban uses it.
func TestPortsOfIptables(t *testing.T) {
	multiport := func(flag byte, invert bool, ports ...uint16) *expr.Match {
		b := make(xt.Unknown, 48)
		b[0], b[1] = flag, byte(len(ports))
		for i, n := range ports {
			binary.NativeEndian.PutUint16(b[2+2*i:], n)
		}
		if invert {
			b[47] = 1
		}
		return &expr.Match{Name: "multiport", Rev: 1, Info: &b}
	}
	ranged := multiport(1, false, 5000, 6000)
	(*ranged.Info.(*xt.Unknown))[32] = 1
	short := xt.Unknown("short")
	for name, row := range map[string]struct {
		match *expr.Match
		want  answer
	}{
		"its port":        {multiport(1, false, 5060, 5061), yes},
		"other ports":     {multiport(1, false, 80, 443), no},
		"not its port":    {multiport(1, true, 5060), no},
		"not other ports": {multiport(1, true, 80), yes},
		"a range":         {ranged, yes},
		"the sender's":    {multiport(0, false, 5060), perhaps},
		"either, found":   {multiport(2, false, 5060), yes},
		"either, not":     {multiport(2, false, 80), perhaps},
		"damaged":         {&expr.Match{Name: "multiport", Rev: 1, Info: &short}, perhaps},
		"too many":        {multiport(1, false, make([]uint16, 16)...), perhaps},
		"another match":   {&expr.Match{Name: "addrtype", Rev: 1, Info: &short}, perhaps},
	} {
		p := packet{ruleset: &ruleset{}, source: prefixes("192.0.2.7/32")[0], to: sip[0]}
		if got := p.matchMultiport(row.match); got != row.want {
			t.Errorf("%s: %v, want %v", name, got, row.want)
		}
	}
}

package hosts

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// nameserver answers DNS on loopback: A of "name", SRV of "_sip._udp.name".
func nameserver(t *testing.T, a map[string]string, srv map[string][]string) *net.Resolver {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			name := strings.TrimSuffix(q.Name.String(), ".")
			h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}
			m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
			switch q.Type {
			case dnsmessage.TypeA:
				if addr, ok := a[name]; ok {
					m.Answers = append(m.Answers, dnsmessage.Resource{Header: h,
						Body: &dnsmessage.AResource{A: netip.MustParseAddr(addr).As4()}})
				}
			case dnsmessage.TypeSRV:
				for _, target := range srv[name] {
					m.Answers = append(m.Answers, dnsmessage.Resource{Header: h,
						Body: &dnsmessage.SRVResource{Port: 5060, Target: dnsmessage.MustNewName(target + ".")}})
				}
			}
			if len(m.Answers) == 0 {
				m.RCode = dnsmessage.RCodeNameError
			}
			if out, err := m.Pack(); err == nil {
				_, _ = pc.WriteTo(out, from)
			}
		}
	})
	t.Cleanup(func() {
		_ = pc.Close()
		wg.Wait()
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}

func TestProvidersAreFoundBySRVToo(t *testing.T) {
	r := nameserver(t,
		map[string]string{"itsp.example.net": "203.0.113.1", "s1.example.net": "203.0.113.2",
			"s2.example.net":   "203.0.113.3",
			"home.example.net": "203.0.113.9"},
		map[string][]string{"_sip._udp.itsp.example.net": {"s1.example.net", "s2.example.net", "gone.example.net"},
			"_sip._tcp.srvonly.example.net": {"s1.example.net"}})
	for name, expect := range map[string]string{
		"itsp.example.net":    "[203.0.113.1 203.0.113.2 203.0.113.3]",
		"srvonly.example.net": "[203.0.113.2]",
		"home.example.net":    "[203.0.113.9]",
	} {
		got, err := LookupSIP(r)(t.Context(), name)
		for i := range got {
			got[i] = got[i].Unmap()
		}
		slices.SortFunc(got, netip.Addr.Compare)
		if err != nil || fmt.Sprint(got) != expect {
			t.Errorf("%s: %v, %v; want %s", name, got, err, expect)
		}
	}
	if got, err := LookupSIP(r)(t.Context(), "nothing.example.net"); !isNotFound(err) || len(got) != 0 {
		t.Errorf("a name that does not exist: %v, %v", got, err)
	}
	if got, err := LookupHost(r)(t.Context(), "itsp.example.net"); err != nil || len(got) != 1 {
		t.Errorf("LookupHost: %v, %v", got, err)
	}
}

func TestNamesOfTheInternet(t *testing.T) {
	for name, want := range map[string]bool{
		"Example.NET.": true, "pbx": true, "1.example.x1": true, "sip_1.example.net": false, "192.0.2.1": false,
		"0x7f000001": false, "a-.b": false, "": false,
	} {
		if got := ValidName(name); got != want {
			t.Errorf("ValidName(%q) = %v", name, got)
		}
	}
}

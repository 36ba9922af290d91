package export

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Format is how bans are written.
type Format string

// The formats.
const (
	Plain    Format = "plain"    // an address or network a line
	JSON     Format = "json"     // an object with bans
	NFT      Format = "nft"      // for nft -f: sets ban4 and ban6 of a table of their own
	MikroTik Format = "mikrotik" // for /import: the address list ringwall
)

// Formats are all of them.
func Formats() []Format { return []Format{Plain, JSON, NFT, MikroTik} }

// NFTTable is the table in which another machine has the sets. Its rules are its administrator's.
const NFTTable = "ringwall_export"

// Ban is what another firewall should keep out.
type Ban struct {
	Prefix netip.Prefix `json:"prefix"`
	Until  time.Time    `json:"until"`
	Reason string       `json:"reason"`
	Proven bool         `json:"proven"`
	Manual bool         `json:"manual"` // by a person
}

// Text writes bans, sorted, so that the same bans are the same bytes.
func Text(format Format, bans []Ban) []byte {
	bans = slices.Clone(bans)
	slices.SortFunc(bans, func(a, b Ban) int {
		if c := a.Prefix.Addr().Compare(b.Prefix.Addr()); c != 0 {
			return c
		}
		return a.Prefix.Bits() - b.Prefix.Bits()
	})
	bans = slices.CompactFunc(bans, func(a, b Ban) bool { return a.Prefix == b.Prefix })
	var out bytes.Buffer
	switch format {
	case JSON:
		list := []Ban{}
		for _, b := range bans {
			b.Until = b.Until.UTC().Truncate(time.Second)
			list = append(list, b)
		}
		text, _ := json.Marshal(map[string]any{"bans": list}) // of such values it cannot fail
		out.Write(append(text, '\n'))
	case NFT:
		writeNFT(&out, bans)
	case MikroTik:
		writeMikroTik(&out, bans)
	default:
		for _, b := range bans {
			out.WriteString(name(b.Prefix) + "\n")
		}
	}
	return out.Bytes()
}

// name is a prefix, and an address where it is one.
func name(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// writeNFT exchanges what is in two sets, in one transaction, and leaves the rules that look into them.
func writeNFT(out *bytes.Buffer, bans []Ban) {
	out.WriteString("add table inet " + NFTTable + "\n")
	for _, s := range []struct {
		name, kind string
		v6         bool
	}{{"ban4", "ipv4_addr", false}, {"ban6", "ipv6_addr", true}} {
		set := "inet " + NFTTable + " " + s.name
		out.WriteString("add set " + set + " { type " + s.kind + "; flags interval; auto-merge; }\nflush set " + set +
			"\n")
		var elements []string
		for _, b := range bans {
			if b.Prefix.Addr().Is6() == s.v6 {
				elements = append(elements, name(b.Prefix))
			}
		}
		if len(elements) > 0 {
			out.WriteString("add element " + set + " { " + strings.Join(elements, ",\n ") + " }\n")
		}
	}
}

// writeMikroTik exchanges the address lists ringwall of RouterOS.
func writeMikroTik(out *bytes.Buffer, bans []Ban) {
	for _, family := range []string{"/ip", "/ipv6"} {
		out.WriteString(family + " firewall address-list remove [find list=ringwall]\n")
		for _, b := range bans {
			if b.Prefix.Addr().Is6() == (family == "/ipv6") {
				address := name(b.Prefix)
				if b.Prefix.Addr().Is6() {
					address = b.Prefix.String()
				}
				out.WriteString(family + " firewall address-list add list=ringwall address=" + address + "\n")
			}
		}
	}
}

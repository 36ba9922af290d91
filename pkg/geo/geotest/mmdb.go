package geotest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// Options are what a file says of itself. The zero value of each is what it is in a file of today.
type Options struct {
	Type       string // DatabaseType, "Test-Places"
	Built      int64  // seconds since 1970; now
	RecordSize int    // bits of half a node: 24, 28 or 32
	IPv4Only   bool
}

// searchTree is the search tree of a file (https://maxmind.github.io/MaxMind-DB/#binary-search-tree-section). The
// values of a node are those of its two halves: another node, or below zero what is found there.
type searchTree struct{ nodes [][2]int }

const nothing = 0 // no half leads back to the first node

func (t *searchTree) insertPrefix(p netip.Prefix, found int, ipv6 bool) {
	bits, length := p.Addr().AsSlice(), p.Bits()
	if ipv6 && p.Addr().Is4() { // ::/96
		bits, length = append(make([]byte, 12), bits...), length+96
	}
	at := 0
	for i := range length {
		half := bits[i/8] >> (7 - i%8) & 1
		if i == length-1 {
			t.nodes[at][half] = found
			return
		}
		if around := t.nodes[at][half]; around <= nothing {
			t.nodes = append(t.nodes, [2]int{around, around})
			t.nodes[at][half] = len(t.nodes) - 1
		}
		at = t.nodes[at][half]
	}
}

// encodeFile writes a file with these records.
func encodeFile(networks map[netip.Prefix]any, o Options) []byte {
	t := searchTree{nodes: make([][2]int, 1)}
	var data bytes.Buffer
	known := map[string]int{} // values that are in data, by their bytes
	for _, p := range slices.SortedFunc(maps.Keys(networks),
		func(a, b netip.Prefix) int { return a.Bits() - b.Bits() }) {
		value := appendValue(nil, networks[p])
		at, ok := known[string(value)]
		if !ok {
			at = data.Len()
			known[string(value)] = at
			data.Write(value)
		}
		t.insertPrefix(p, -1-at, !o.IPv4Only)
	}
	var out []byte
	for _, node := range t.nodes {
		var halves [2]uint32
		for i, to := range node {
			switch {
			case to < nothing:
				halves[i] = uint32(len(t.nodes) + 16 + (-1 - to))
			case to == nothing:
				halves[i] = uint32(len(t.nodes))
			default:
				halves[i] = uint32(to)
			}
		}
		out = appendNode(out, halves, o.RecordSize)
	}
	out = append(out, make([]byte, 16)...)
	out = append(out, data.Bytes()...)
	out = append(out, "\xab\xcd\xefMaxMind.com"...)
	version := uint16(6)
	if o.IPv4Only {
		version = 4
	}
	return appendValue(out, map[string]any{
		"binary_format_major_version": uint16(2), "binary_format_minor_version": uint16(0),
		"build_epoch":   uint64(o.Built),
		"database_type": o.Type, "description": map[string]any{"en": "places for tests"}, "ip_version": version,
		"languages": []any{"en"}, "node_count": uint32(len(t.nodes)), "record_size": uint16(o.RecordSize),
	})
}

func appendNode(out []byte, halves [2]uint32, size int) []byte {
	left, right := binary.BigEndian.AppendUint32(nil, halves[0]), binary.BigEndian.AppendUint32(nil, halves[1])
	switch size {
	case 24:
		return append(append(out, left[1:]...), right[1:]...)
	case 28:
		out = append(append(out, left[1:]...), left[0]<<4|right[0]&15)
		return append(out, right[1:]...)
	case 32:
		return append(append(out, left...), right...)
	}
	panic(fmt.Sprintf("geotest: records of %d bits", size))
}

// appendValue encodes a field of the data section (https://maxmind.github.io/MaxMind-DB/#output-data-section).
func appendValue(out []byte, value any) []byte {
	const (
		text, short, number, object, long, list, yes = 2, 5, 6, 7, 9, 11, 14
	)
	switch v := value.(type) {
	case string:
		return append(appendControl(out, text, len(v)), v...)
	case uint16:
		return binary.BigEndian.AppendUint16(appendControl(out, short, 2), v)
	case uint32:
		return binary.BigEndian.AppendUint32(appendControl(out, number, 4), v)
	case uint64:
		return binary.BigEndian.AppendUint64(appendControl(out, long, 8), v)
	case bool:
		if v {
			return appendControl(out, yes, 1)
		}
		return appendControl(out, yes, 0)
	case []any:
		out = appendControl(out, list, len(v))
		for _, element := range v {
			out = appendValue(out, element)
		}
		return out
	case Record:
		return appendValue(out, map[string]any(v))
	case map[string]any:
		out = appendControl(out, object, len(v))
		for _, key := range slices.Sorted(maps.Keys(v)) {
			out = appendValue(appendValue(out, key), v[key])
		}
		return out
	}
	panic(fmt.Sprintf("geotest: a value of type %T", value))
}

// appendControl says of what kind the next field is, and how long.
func appendControl(out []byte, kind, length int) []byte {
	first, second := byte(kind<<5), []byte(nil)
	if kind > 7 {
		first, second = 0, []byte{byte(kind - 7)}
	}
	switch {
	case length < 29:
		first |= byte(length)
	case length < 29+256:
		first |= 29
		second = append(second, byte(length-29))
	default:
		first |= 30
		second = binary.BigEndian.AppendUint16(second, uint16(length-29-256))
	}
	return append(append(out, first), second...)
}

package main

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"time"
)

// nthAddress is the n-th address from 32.0.0.0 on.
func nthAddress(n int) netip.Addr {
	return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 32<<24+uint32(n))))
}

// appendEvent appends an InvalidAccountID as Asterisk 22 writes it.
func appendEvent(b []byte, at time.Time, account string, call int, transport string, from netip.Addr) []byte {
	b = append(b, "Event: InvalidAccountID\r\nPrivilege: security,all\r\nEventTV: "...)
	b = at.UTC().AppendFormat(b, "2006-01-02T15:04:05.000-0700")
	b = append(b, "\r\nSeverity: Error\r\nService: PJSIP\r\nEventVersion: 1\r\nAccountID: "...)
	b = append(b, account...)
	b = append(b, "\r\nSessionID: 5f1a9c3e-71bc-4d0a-9a6e-"...)
	b = strconv.AppendInt(b, int64(1e11)+int64(call), 10)
	b = append(b, "\r\nLocalAddress: IPV4/"...)
	b = append(b, transport...)
	b = append(b, "/192.0.2.1/5060\r\nRemoteAddress: IPV4/"...)
	b = append(b, transport...)
	b = append(b, '/')
	b = from.AppendTo(b)
	return append(b, "/5060\r\n\r\n"...)
}

// visitInOrder visits the sources of a flood: a thousand at a time, each again and again, and so on to the last.
func visitInOrder(events, sources int, visit func(source int)) {
	rounds := events / sources
	for first := 0; first < sources; first += 1000 {
		for range rounds {
			for n := first; n < min(first+1000, sources); n++ {
				visit(n)
			}
		}
	}
}

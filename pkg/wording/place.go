package wording

import (
	"fmt"
	"strings"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/printable"
)

// PlaceText names where an address is registered, such as "NL AS64496 Example B.V."; it is empty where nobody knows.
func PlaceText(p ban.Place) string {
	var parts []string
	if p.Country != "" {
		parts = append(parts, printable.Limit(p.Country, 8))
	}
	if p.ASN != 0 {
		parts = append(parts, fmt.Sprintf("AS%d", p.ASN))
	}
	if p.ASName != "" {
		parts = append(parts, printable.Limit(p.ASName, 40))
	}
	return strings.Join(parts, " ")
}

package geo

import (
	"strings"

	"github.com/ringwall/ringwall/pkg/ban"
)

// maxName is the longest name of an autonomous system that is kept, in bytes.
const maxName = 200

// orElse fills in what p does not know.
func orElse(p, q ban.Place) ban.Place {
	if p.Country == "" {
		p.Country = q.Country
	}
	if p.ASN == 0 {
		p.ASN, p.ASName = q.ASN, q.ASName
	}
	return p
}

// countryCode returns a code as two capital letters, or nothing.
func countryCode(code string) string {
	if len(code) != 2 || !isLetter(code[0]) || !isLetter(code[1]) {
		return ""
	}
	return strings.ToUpper(code)
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// cleanName makes a text of a file fit to be kept.
func cleanName(text string) string {
	if len(text) > maxName {
		text = text[:maxName]
	}
	return strings.ToValidUTF8(text, "")
}

package hint

import "strings"

// Nearest returns the candidate that a mistyped word was probably meant to be, or "": of keys of the configuration,
// commands, flags.
func Nearest(word string, candidates []string) string {
	if len(word) == 0 || len(word) > 64 {
		return ""
	}
	word = normalized(word)
	best, bestDistance := "", 1+max(1, len(word)/3)
	for _, candidate := range candidates {
		c := normalized(candidate)
		if word == c {
			return candidate
		}
		if len(word) > 3 && len(c) > 3 && (strings.HasPrefix(word, c) || strings.HasPrefix(c, word)) {
			best, bestDistance = candidate, 1 // warning for warn, addr for address
			continue
		}
		if d := editDistance(word, c); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// normalized leaves aside what people do not mean as a difference.
func normalized(word string) string { return strings.ToLower(strings.ReplaceAll(word, "-", "_")) }

// editDistance counts insertions, deletions, substitutions and swaps of neighbours (optimal string alignment).
func editDistance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

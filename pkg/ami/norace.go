//go:build !race && !poison

package ami

// poisoned is off: it costs time.
const poisoned = false

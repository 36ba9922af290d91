//go:build race || poison

package ami

// poisoned makes every queue and Splitter write over frames that are no longer in use.
const poisoned = true

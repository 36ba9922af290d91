package engine

import "time"

const forgeableHeldText = "a name of the allow list has no address yet, and the evidence could be forged " +
	"or be the named host's: not banned in the first minute"

// HoldForgeable puts off bans on evidence that could be forged until a time: somebody on the allow list has no address
// yet. The zero time ends it. Who attacks after it is banned.
func (e *Engine) HoldForgeable(until time.Time) {
	e.forgeableHeldUntil = 0
	if !until.IsZero() {
		e.forgeableHeldUntil = until.UnixNano()
	}
}

// ForgeableHeldUntil returns until when such bans are put off; where none are, that is not after now.
func (e *Engine) ForgeableHeldUntil() time.Time { return utcTime(e.forgeableHeldUntil) }

// forgeableMustWait says whether a ban is put off by HoldForgeable.
func (e *Engine) forgeableMustWait(proven bool) bool { return !proven && e.now < e.forgeableHeldUntil }

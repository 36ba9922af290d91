package engine

import "time"

const forgeableHeldText = "a name of the allow list has no address yet, and the evidence could be forged or be the named host's: not banned in the first minute"

// HoldForgeable has no source banned until then on evidence that could be forged: somebody on the allow list is not known yet. The
// zero time ends it. Who goes on after it is banned.
func (e *Engine) HoldForgeable(until time.Time) {
	e.forgeableHeldUntil = 0
	if !until.IsZero() {
		e.forgeableHeldUntil = until.UnixNano()
	}
}

// ForgeableHeldUntil is until when Hold has them spared, not after now where it does not.
func (e *Engine) ForgeableHeldUntil() time.Time { return utc(e.forgeableHeldUntil) }

// forgeableMustWait says whether a ban by such evidence has to wait.
func (e *Engine) forgeableMustWait(proven bool) bool { return !proven && e.now < e.forgeableHeldUntil }

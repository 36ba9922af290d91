package engine

import "time"

const heldText = "a name of the allow list has no address yet, and the evidence could be forged or be the named host's: not banned in the first minute"

// Hold has no source banned until then on evidence that could be forged: somebody on the allow list is not known yet. The
// zero time ends it. Who goes on after it is banned.
func (e *Engine) Hold(until time.Time) {
	e.held = 0
	if !until.IsZero() {
		e.held = until.UnixNano()
	}
}

// Held is until when Hold has them spared, not after now where it does not.
func (e *Engine) Held() time.Time { return stamp(e.held) }

// holds says whether a ban by such evidence has to wait.
func (e *Engine) holds(proven bool) bool { return !proven && e.now < e.held }

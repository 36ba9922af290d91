package daemon

import (
	"slices"

	"github.com/ringwall/ringwall/pkg/ban"
	"github.com/ringwall/ringwall/pkg/firewall"
)

// maxDirect is how many changes are written without the writer's goroutine. More are worth waking it.
const maxDirect = 8

// direct is how the goroutine that made decisions gives them to the kernel. Room and functions are used again, and all that
// can wait does: what comes before the kernel's answer, an attacker's packets get through meanwhile.
type direct struct {
	j         *judge
	pbx       *pbx
	heard     heard
	turn      *firewall.Turn
	decisions []ban.Decision
	changes   []firewall.Change
	room      room

	write, between func() // methods
	done           func(error)
}

// directly prepares to write the decisions in out by the goroutine that made them, where the writer has nothing else to do.
// All but the kernel then waits until the kernel has them; what was heard is noted then, too. It returns nil where they are
// for dispatch. The lock is held.
func (j *judge) directly(p *pbx, h heard) (write func()) {
	if n := inKernel(j.out); n == 0 || n > maxDirect || n < len(j.out) {
		return nil
	}
	turn := j.writer.Turn()
	if turn == nil {
		return nil
	}
	d := j.hand.Swap(nil)
	if d == nil {
		d = &direct{j: j}
		d.write, d.between, d.done = d.doWrite, d.doBetween, d.doDone
	}
	d.pbx, d.heard, d.turn = p, h, turn
	d.decisions, d.room.came = append(d.decisions, j.out...), append(d.room.came, j.came...)
	for i := range j.out {
		c, _ := change(&j.out[i])
		d.changes = append(d.changes, c)
	}
	return d.write
}

// doWrite gives the changes to the kernel. When it has returned, d may be in use again.
func (d *direct) doWrite() { d.turn.Write(d.changes, d.between, d.done) }

func (d *direct) doBetween() {
	d.pbx.note(d.heard)
	d.j.mu.Lock()
	defer d.j.mu.Unlock()
	for i := range d.decisions {
		d.room.kept = d.j.recordsLocked(&d.decisions[i], d.room.kept)
	}
}

func (d *direct) doDone(err error) {
	d.j.committed(err, slices.Clone(d.decisions), &d.room)
	clear(d.decisions)
	d.room.empty()
	d.pbx, d.turn, d.decisions, d.changes = nil, nil, d.decisions[:0], d.changes[:0]
	d.j.hand.Store(d)
}

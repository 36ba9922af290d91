package engine

const waitingPage = 256

// waiting are events that wait for a login, in the order in which their time is over, in pages that are never copied.
type waiting struct {
	pages []*[waitingPage]pending
	begin int // of the first event, in the first page
	n     int
}

func (w *waiting) at(i int) *pending {
	i += w.begin
	return &w.pages[i/waitingPage][i%waitingPage]
}

// first returns the event whose time is over first, or nil.
func (w *waiting) first() *pending {
	if w.n == 0 {
		return nil
	}
	return w.at(0)
}

// last returns the event whose time is over last, or nil.
func (w *waiting) last() *pending {
	if w.n == 0 {
		return nil
	}
	return w.at(w.n - 1)
}

func (w *waiting) push(p pending) {
	if w.begin+w.n == len(w.pages)*waitingPage {
		w.pages = append(w.pages, new([waitingPage]pending))
	}
	w.n++
	*w.last() = p
}

// pop takes the first event. There must be one.
func (w *waiting) pop() pending {
	p := *w.first()
	w.begin++
	w.n--
	switch {
	case w.n == 0:
		w.begin = 0
		clear(w.pages[min(1, len(w.pages)):])
		w.pages = w.pages[:1]
	case w.begin == waitingPage:
		w.pages[0] = nil
		w.pages, w.begin = w.pages[1:], 0
	}
	return p
}

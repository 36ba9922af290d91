package browser

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
)

// params are those of a command.
type params map[string]any

// devToolsPipe speaks the DevTools protocol (https://chromedevtools.github.io/devtools-protocol/) with a Chromium
// that was started with --remote-debugging-pipe: a JSON object and a zero byte for each message, commands to its
// descriptor 3, answers and events from its descriptor 4.
type devToolsPipe struct {
	to, from *os.File
	onEvent  func(method string, params json.RawMessage)
	ended    chan struct{}

	mu      sync.Mutex
	last    int // number of a command
	waiting map[int]chan message
}

type message struct {
	ID     int             `json:"id"`
	Method string          `json:"method"` // of an event
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

var errEnded = errors.New("the browser has ended")

// startBrowser starts Chromium. hear is called with each event, on one goroutine.
func startBrowser(cmd *exec.Cmd, hear func(method string, params json.RawMessage)) (*devToolsPipe, error) {
	theirs, to, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	from, answers, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, theirs.Close(), to.Close())
	}
	cmd.ExtraFiles = []*os.File{theirs, answers}
	err = errors.Join(cmd.Start(), theirs.Close(), answers.Close())
	p := &devToolsPipe{to: to, from: from, onEvent: hear, ended: make(chan struct{}), waiting: map[int]chan message{}}
	go p.readMessages()
	if err != nil {
		p.closePipe()
		return nil, err
	}
	return p, nil
}

// closePipe is for after Chromium's end.
func (p *devToolsPipe) closePipe() {
	_, _ = p.to.Close(), p.from.Close()
	<-p.ended
}

func (p *devToolsPipe) isAlive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

func (p *devToolsPipe) readMessages() {
	defer close(p.ended)
	for r := bufio.NewReader(p.from); ; {
		text, err := r.ReadBytes(0)
		if err != nil {
			return
		}
		var m message
		if err := json.Unmarshal(bytes.TrimSuffix(text, []byte{0}), &m); err != nil {
			continue // nobody waits for it, or he waits in vain and says so
		}
		if m.Method != "" {
			p.onEvent(m.Method, m.Params)
			continue
		}
		p.mu.Lock()
		answer := p.waiting[m.ID]
		delete(p.waiting, m.ID)
		p.mu.Unlock()
		if answer != nil {
			answer <- m
		}
	}
}

// runCommand gives a command to a session, or to the browser where that is "", and waits for the answer.
func (p *devToolsPipe) runCommand(ctx context.Context, answer any, session, method string, with params) error {
	answers := make(chan message, 1)
	p.mu.Lock()
	p.last++
	id := p.last
	p.waiting[id] = answers
	p.mu.Unlock()
	command := map[string]any{"id": id, "method": method}
	if session != "" {
		command["sessionId"] = session
	}
	if with != nil {
		command["params"] = with
	}
	text, err := json.Marshal(command)
	if err != nil {
		return err
	}
	if _, err := p.to.Write(append(text, 0)); err != nil {
		return err
	}
	select {
	case m := <-answers:
		switch {
		case m.Error != nil:
			return errors.New(m.Error.Message)
		case answer == nil:
			return nil
		}
		return json.Unmarshal(m.Result, answer)
	case <-p.ended:
		return errEnded
	case <-ctx.Done():
		return fmt.Errorf("no answer: %w", ctx.Err())
	}
}

package browser

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience bounds whatever the browser does: it costs time only where something is broken.
const patience = 2 * time.Minute

// Browser is Chromium with one tab, and what it complained of. It is for the goroutine of its test.
type Browser struct {
	t    testing.TB
	pipe *devToolsPipe
	tab  string        // the session of the tab
	load chan struct{} // holds a token after a page was loaded

	mu         sync.Mutex
	complaints []string
}

// Open starts Chromium with a profile of its own. It ends with the test, together with all of its processes.
func Open(t testing.TB) *Browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("this test needs Chromium (Debian: apt-get install chromium): %v", err)
	}
	cmd := exec.Command(path, "--headless", "--remote-debugging-pipe", "--user-data-dir="+t.TempDir(), "--no-sandbox",
		"--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--disable-sync", "--disable-extensions",
		"--disable-default-apps", "--disable-component-update", "--disable-background-networking", "--disable-breakpad",
		"--disable-background-timer-throttling", "--disable-renderer-backgrounding", "--disable-popup-blocking",
		"--disable-features=Translate", "--force-color-profile=srgb", "--metrics-recording-only", "--no-first-run",
		"--no-default-browser-check", "--password-store=basic", "about:blank")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	b := &Browser{t: t, load: make(chan struct{}, 1)}
	if b.pipe, err = startBrowser(cmd, b.recordEvent); err != nil {
		t.Fatalf("Chromium does not start: %v", err)
	}
	t.Cleanup(func() {
		// The whole group, while its leader is still there to name it.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		b.pipe.closePipe()
	})
	var target struct {
		ID string `json:"targetId"`
	}
	b.runCommand(&target, "", "Target.createTarget", params{"url": "about:blank"})
	var attached struct {
		Session string `json:"sessionId"`
	}
	b.runCommand(&attached, "", "Target.attachToTarget", params{"targetId": target.ID, "flatten": true})
	b.tab = attached.Session
	for _, domain := range []string{"Log", "Runtime", "Page"} {
		b.runCommand(nil, b.tab, domain+".enable", nil)
	}
	return b
}

// recordEvent keeps complaints of the tab, and that a page was loaded.
func (b *Browser) recordEvent(method string, raw json.RawMessage) {
	var ev struct {
		Type             string
		Message          string
		ExceptionDetails struct{ Text string }
		Entry            struct{ Level, Text, URL string }
	}
	if err := json.Unmarshal(raw, &ev); err != nil {
		ev.Message = err.Error()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	complain := func(format string, args ...any) { b.complaints = append(b.complaints, fmt.Sprintf(format, args...)) }
	switch method {
	case "Runtime.consoleAPICalled":
		complain("console: %s", ev.Type)
	case "Runtime.exceptionThrown":
		complain("exception: %s", ev.ExceptionDetails.Text)
	case "Log.entryAdded":
		complain("%s: %s %s", ev.Entry.Level, ev.Entry.Text, ev.Entry.URL)
	case "Page.javascriptDialogOpening":
		complain("dialog: %s", ev.Message)
	case "Page.loadEventFired":
		select {
		case b.load <- struct{}{}:
		default:
		}
	}
}

// Quiet fails the test where the browser complained: an error or a word on the console, a violation of the page's
// security policy, a dialog.
func (b *Browser) Quiet() {
	b.t.Helper()
	for _, c := range b.Complaints() {
		b.t.Errorf("the browser says: %s", c)
	}
}

// Complaints returns, and forgets, what the browser complained of.
func (b *Browser) Complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := b.complaints
	b.complaints = nil
	return list
}

// Go opens an address.
func (b *Browser) Go(url string) {
	b.t.Helper()
	select {
	case <-b.load: // of a page before
	default:
	}
	var answer struct {
		Trouble string `json:"errorText"`
	}
	b.runCommand(&answer, b.tab, "Page.navigate", params{"url": url})
	if answer.Trouble != "" {
		b.t.Fatalf("%s: %s", url, answer.Trouble)
	}
	select {
	case <-b.load:
	case <-time.After(patience):
		b.t.Fatalf("%s was not loaded in time", url)
	}
}

// Screen sets the size of the window in CSS pixels, and which of light and dark is preferred.
func (b *Browser) Screen(width, height int64, scheme string) {
	b.t.Helper()
	b.runCommand(nil, b.tab, "Emulation.setDeviceMetricsOverride", params{
		"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false})
	b.runCommand(nil, b.tab, "Emulation.setEmulatedMedia", params{
		"features": []params{{"name": "prefers-color-scheme", "value": scheme}}})
}

// WithoutScript turns JavaScript of the pages off.
func (b *Browser) WithoutScript() {
	b.t.Helper()
	b.runCommand(nil, b.tab, "Emulation.setScriptExecutionDisabled", params{"value": true})
}

// Until waits until an expression is true in the page, also through a change of the page.
func (b *Browser) Until(expression string) {
	b.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		ok, err := evaluate[bool](b, "!!("+expression+")")
		if err == nil && ok {
			return
		}
		if time.Now().After(end) {
			b.t.Fatalf("not true in time: %s (%v)\nthe page: %s", expression, err, b.pageText())
		}
	}
}

func (b *Browser) pageText() string {
	text, err := evaluate[string](b, "location.href + '\\n' + document.body.innerText")
	if err != nil {
		return err.Error()
	}
	return text
}

// Click clicks at the first element that a CSS selector names, once there is one. It finds and clicks in one step: a
// live page may put another element in its place at any time.
func (b *Browser) Click(selector string) {
	b.t.Helper()
	click := fmt.Sprintf("((e) => e && !e.disabled ? (e.click(), true) : false)(document.querySelector(%q))", selector)
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		done, err := evaluate[bool](b, click)
		switch {
		case err != nil && b.pipe.isAlive(): // the page went away under the click: what that did is for the test to see
			b.t.Logf("clicked at %s: %v", selector, err)
			return
		case done:
			return
		case err != nil, time.Now().After(end):
			b.t.Fatalf("there is nothing to click at: %s (%v)\nthe page: %s", selector, err, b.pageText())
		}
	}
}

// Type types into the first element that a CSS selector names, once there is one.
func (b *Browser) Type(selector, text string) {
	b.t.Helper()
	b.Until(fmt.Sprintf("((e) => e && (e.focus(), document.activeElement === e))(document.querySelector(%q))",
		selector))
	for _, r := range text {
		key := params{"type": "keyDown", "text": string(r), "key": string(r)}
		if r == '\r' {
			key["key"], key["code"], key["windowsVirtualKeyCode"] = "Enter", "Enter", '\r'
		}
		b.runCommand(nil, b.tab, "Input.dispatchKeyEvent", key)
		key["type"] = "keyUp"
		delete(key, "text")
		b.runCommand(nil, b.tab, "Input.dispatchKeyEvent", key)
	}
}

// Eval returns the value of an expression in the page.
func Eval[T any](b *Browser, expression string) T {
	b.t.Helper()
	v, err := evaluate[T](b, expression)
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

func evaluate[T any](b *Browser, expression string) (value T, err error) {
	var answer struct {
		Result    struct{ Value json.RawMessage }
		Exception *struct{ Text string } `json:"exceptionDetails"`
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err = b.pipe.runCommand(ctx, &answer, b.tab, "Runtime.evaluate",
		params{"expression": expression, "returnByValue": true})
	switch {
	case err != nil:
		return value, err
	case answer.Exception != nil:
		return value, fmt.Errorf("exception: %s", answer.Exception.Text)
	case answer.Result.Value == nil:
		return value, fmt.Errorf("undefined: %s", expression)
	}
	err = json.Unmarshal(answer.Result.Value, &value)
	return value, err
}

func (b *Browser) runCommand(answer any, session, method string, p params) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.pipe.runCommand(ctx, answer, session, method, p); err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
}

package browser

import (
	"context"
	"fmt"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience bounds whatever the browser does: it costs time only where something is broken.
const patience = 2 * time.Minute

// Browser is Chromium with one tab, and what it complained of. It is for the goroutine of its test.
type Browser struct {
	t   testing.TB
	ctx context.Context

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
	var process *exec.Cmd
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()),
		chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WSURLReadTimeout(patience), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.ModifyCmdFunc(func(cmd *exec.Cmd) {
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
			process = cmd
		}))
	ctx, cancelAll := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancelTab := chromedp.NewContext(ctx)
	b := &Browser{t: t, ctx: ctx}
	t.Cleanup(func() {
		if process != nil && process.Process != nil { // the whole group, while its leader is still there to name it
			_ = syscall.Kill(-process.Process.Pid, syscall.SIGKILL)
		}
		cancelTab()
		cancelAll()
	})
	// The first action starts the browser, which lives as long as the context of that action.
	slow := time.AfterFunc(patience, func() { cancelAll() })
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("Chromium does not start: %v", err)
	}
	slow.Stop()
	if err := chromedp.Listen(ctx, b.hear); err != nil {
		t.Fatal(err)
	}
	call(b, log.Enable, cdp.Empty{})
	call(b, runtime.Enable, cdp.Empty{})
	call(b, page.Enable, page.EnableParams{})
	return b
}

func (b *Browser) hear(ev any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	complain := func(format string, args ...any) { b.complaints = append(b.complaints, fmt.Sprintf(format, args...)) }
	switch ev := ev.(type) {
	case *runtime.EventConsoleAPICalled:
		complain("console: %s", ev.Type)
	case *runtime.EventExceptionThrown:
		complain("exception: %s", ev.ExceptionDetails.Text)
	case *log.EventEntryAdded:
		complain("%s: %s %s", ev.Entry.Level, ev.Entry.Text, ev.Entry.URL)
	case *page.EventJavascriptDialogOpening:
		complain("dialog: %s", ev.Message)
	}
}

// Quiet fails the test where the browser complained: an error or a word on the console, a violation of the page's security
// policy, a dialog.
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
	run(b, chromedp.Navigate(url))
}

// Screen sets the size of the window in CSS pixels, and which of light and dark is preferred.
func (b *Browser) Screen(width, height int64, scheme string) {
	b.t.Helper()
	run(b, chromedp.EmulateViewport(width, height))
	call(b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
}

// WithoutScript turns JavaScript of the pages off.
func (b *Browser) WithoutScript() {
	b.t.Helper()
	call(b, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
}

// Until waits until an expression is true in the page, also through a change of the page.
func (b *Browser) Until(expression string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	for {
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if err == nil && ok {
			return
		}
		select {
		case <-ctx.Done():
			b.t.Fatalf("not true in time: %s (%v)\nthe page: %s", expression, err, b.text())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (b *Browser) text() string {
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string]("location.href + '\\n' + document.body.innerText"))
	if err != nil {
		return err.Error()
	}
	return text
}

// Shot is a picture of the window, or of the whole page, as PNG.
func (b *Browser) Shot(whole bool) []byte {
	b.t.Helper()
	if whole {
		return run(b, chromedp.FullScreenshot(100))
	}
	return run(b, chromedp.CaptureScreenshot())
}

// Click clicks at the first element that a CSS selector names, once there is one. It finds and clicks in one step: a live page
// may put another element in its place at any time.
func (b *Browser) Click(selector string) {
	b.t.Helper()
	click := fmt.Sprintf("((e) => e && !e.disabled ? (e.click(), true) : false)(document.querySelector(%q))", selector)
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	for {
		done, err := chromedp.Run(ctx, chromedp.Evaluate[bool](click))
		switch {
		case ctx.Err() != nil:
			b.t.Fatalf("there is nothing to click at: %s\nthe page: %s", selector, b.text())
		case err != nil: // the page went away under the click: what that did is for the test to see
			b.t.Logf("clicked at %s: %v", selector, err)
			return
		case done:
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Type types into the first element that a CSS selector names.
func (b *Browser) Type(selector, text string) {
	b.t.Helper()
	run(b, chromedp.SendKeys(chromedp.CSS(selector), text))
}

// Eval returns the value of an expression in the page.
func Eval[T any](b *Browser, expression string) T {
	b.t.Helper()
	return run(b, chromedp.Evaluate[T](expression))
}

func run[T any](b *Browser, a chromedp.Action[T]) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, a)
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

func call[P, R any](b *Browser, c cdp.Command[P, R], params P) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if _, err := chromedp.Call(ctx, c, params); err != nil {
		b.t.Fatal(err)
	}
}

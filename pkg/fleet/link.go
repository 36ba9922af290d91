package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ringwall/ringwall/pkg/fleet/record"
	"github.com/ringwall/ringwall/pkg/mailbox"
)

const (
	liveQueue  = 8192             // messages that wait to be merged; what does not fit is fetched
	fetchBatch = 500              // records that are asked for at once
	answerTime = 10 * time.Second // for a server's answer
	retryLeast = time.Second      // between attempts at what failed
	retryMost  = 30 * time.Second
	lookEvery  = 5 * time.Minute // for what was missed without a sign of it
	sendBatch  = 256             // records that may wait for the server's word
	expireStep = 1000            // records

	laggingTries = 5 // for what a server does not have yet
	laggingTime  = 200 * time.Millisecond
)

// StreamName is the stream of a fleet.
func StreamName(fleet string) string { return "RINGWALL_" + fleet }

// livePrefix is where the server repeats what it has stored.
const livePrefix = "ringwall-live."

// LiveSubjects are all subjects in which the server repeats what it has stored of a fleet.
func LiveSubjects(fleet string) string { return livePrefix + fleet + ".>" }

// StreamConfig is the stream of a fleet, as the first node makes it where it may.
func StreamConfig(fleet string) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name:              StreamName(fleet),
		Description:       "what the nodes of a fleet of Ringwall tell each other",
		Subjects:          []string{"ringwall." + fleet + ".>"},
		MaxMsgsPerSubject: 1,
		MaxMsgSize:        1024, // with its headers
		MaxBytes:          1 << 30,
		Discard:           jetstream.DiscardOld,
		AllowDirect:       true,
		AllowMsgTTL:       true,
		RePublish: &jetstream.RePublish{Source: "ringwall." + fleet + ".>",
			Destination: LiveSubjects(fleet)},
	}
}

// link is one run of a Fleet.
type link struct {
	*Fleet
	nc          *nats.Conn
	js          jetstream.JetStream
	credentials []byte // the file, as it was when the connection was begun

	beats chan *nats.Msg // heartbeats of others

	// Of the goroutine that receives alone.
	last     uint64             // up to here nothing is missing
	created  time.Time          // of the stream that last is about
	watching *nats.Subscription // to heartbeats; nil: they are not heard
}

// errNewCredentials says that the node may be let in by credentials that it did not have when it connected.
var errNewCredentials = errors.New("there are new credentials")

// Run keeps the node in touch until ctx ends. It fails only where no attempt could ever succeed.
func (f *Fleet) Run(ctx context.Context) error {
	f.readKept()
	defer f.trySaveKept()
	for {
		l := &link{Fleet: f, beats: make(chan *nats.Msg, beatQueue)}
		if err := l.run(ctx); !errors.Is(err, errNewCredentials) {
			return err
		}
		f.log.Info("the fleet is tried with new credentials", "file", f.cfg.CredentialsFile)
	}
}

func (l *link) run(ctx context.Context) error {
	f := l.Fleet
	closed := make(chan error, 1)
	var err error
	if l.credentials, err = readCredentials(f.cfg); err != nil {
		return err
	}
	options := []nats.Option{
		nats.Name("ringwall " + f.cfg.Node), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.ReconnectWait(retryLeast), nats.ReconnectJitter(retryLeast, 3*retryLeast),
		nats.IgnoreAuthErrorAbort(), // who is revoked today may be let in tomorrow
		nats.ReconnectBufSize(-1),   // what is to be said waits in the outbox
		nats.Timeout(answerTime), nats.PingInterval(20 * time.Second), nats.MaxPingsOutstanding(2),
		nats.ConnectHandler(l.connected), nats.ReconnectHandler(l.connected),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			f.setStatus(func(s *Status) {
				s.Connected, s.CaughtUp, s.Error, f.connectedAt = false, false, errorText(err), time.Time{}
			})
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { l.failed(err) }),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			switch {
			case isOfHeartbeats(f.cfg.Name, sub, err):
				l.heartbeatsFailed(err)
			case errors.Is(err, nats.ErrSlowConsumer): // more at once than waits here: it is fetched
				mailbox.Signal(f.fetch)
			default:
				l.failed(err)
			}
		}),
		nats.ClosedHandler(func(nc *nats.Conn) {
			closed <- nc.LastError()
		}),
	}
	if l.nc, err = connect(f.cfg, options...); err != nil {
		return err
	}
	defer l.nc.Close()
	if l.js, err = jetstream.New(l.nc, jetstream.WithPublishAsyncTimeout(answerTime)); err != nil {
		return err
	}
	live := make(chan *nats.Msg, liveQueue)
	if _, err := l.nc.ChanSubscribe(LiveSubjects(f.cfg.Name), live); err != nil {
		return err
	}
	sending, stop := context.WithCancel(ctx)
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		l.sendAll(sending)
	}()
	defer func() {
		stop()
		<-sent
	}()
	return l.receiveAll(ctx, live, closed)
}

// connect connects to the servers of a fleet.
func connect(cfg Config, options ...nats.Option) (*nats.Conn, error) {
	if cfg.CredentialsFile != "" {
		credentials, err := credentialsOption(cfg.CredentialsFile)
		if err != nil {
			return nil, err
		}
		options = append(options, credentials)
	}
	if cfg.TLS != nil {
		options = append(options, nats.Secure(cfg.TLS))
	}
	if cfg.RootCAs != nil {
		options = append(options, nats.ClientTLSConfig(nil, cfg.RootCAs))
	}
	return nats.Connect(strings.Join(cfg.Servers, ","), options...)
}

// readCredentials reads the file of credentials, if there is to be one.
func readCredentials(cfg Config) ([]byte, error) {
	if cfg.CredentialsFile == "" {
		return nil, nil
	}
	return os.ReadFile(cfg.CredentialsFile)
}

// hasNewCredentials says whether a node that is not let in has got other credentials meanwhile. NATS'
// client reads an nkey once.
func (l *link) hasNewCredentials() bool {
	if l.nc.IsConnected() {
		return false
	}
	credentials, err := readCredentials(l.cfg)
	return err == nil && !bytes.Equal(credentials, l.credentials)
}

// credentialsOption proves to a server who the node is: by a file of nsc's, or by the seed of an nkey alone, as
// ringwall fleet join writes it.
func credentialsOption(file string) (nats.Option, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if bytes.Contains(data, []byte("NATS USER JWT")) {
		return nats.UserCredentials(file), nil
	}
	return nats.NkeyOptionFromSeed(file)
}

func (l *link) connected(nc *nats.Conn) {
	l.setStatus(func(s *Status) {
		s.Connected, s.Server, s.Error, s.Unseen = true, nc.ConnectedUrlRedacted(), "", ""
		l.connectedAt = l.cfg.Now()
	})
	l.beatSoon()
	l.log.Info("connected to the fleet", "server", nc.ConnectedUrlRedacted(), "fleet", l.cfg.Name, "node", l.cfg.Node)
	mailbox.Signal(l.fetch)
}

// failed notes what went wrong; the log hears of each thing once.
func (l *link) failed(err error) {
	text := errorText(err)
	if text == "" {
		return
	}
	before := ""
	l.setStatus(func(s *Status) { before, s.Error = s.Error, text })
	if text != before {
		l.log.Warn("the fleet does not answer as it should; attackers are kept out without it", "err", text)
	}
}

// maxErrorText is in bytes: a server chose it.
const maxErrorText = 300

func errorText(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	return text[:min(len(text), maxErrorText)]
}

// receiveAll merges what others say until ctx ends.
func (l *link) receiveAll(ctx context.Context, live <-chan *nats.Msg, closed <-chan error) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	l.beat() // who is there is heard from the first moment
	retry := time.NewTimer(0)
	retry.Stop()
	wait := retryLeast
	catchUp := func() {
		if err := l.catchUp(ctx); err != nil && ctx.Err() == nil {
			l.failed(err)
			retry.Reset(wait)
			wait = min(2*wait, retryMost)
			return
		}
		retry.Stop()
		wait = retryLeast
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-closed:
			return fmt.Errorf("the connection is closed: %w", err)
		case m := <-live:
			if gap := l.takeLive(m); gap {
				catchUp()
			}
		case m := <-l.beats:
			l.hear(m)
		case <-l.fetch:
			catchUp()
		case <-retry.C:
			catchUp()
		case <-look.C:
			catchUp()
			l.dropIdle()
		case <-tick.C:
			l.expire()
			l.trySaveKept()
			l.beat()
			if l.hasNewCredentials() {
				return errNewCredentials
			}
		}
	}
}

// expire has those judged anew about whom somebody's word is over.
func (f *Fleet) expire() {
	for more := true; more; {
		f.mu.Lock()
		about, left := f.book.Expire(f.cfg.Now(), expireStep)
		f.changedLocked(about)
		more = left
		f.mu.Unlock()
	}
}

// header is what the server says of a message. Whoever publishes may have written the same key, before the server's.
func header(m *nats.Msg, key string) string {
	values := m.Header[key]
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}

// takeLive merges what the server repeats, and says whether something before it is missing.
func (l *link) takeLive(m *nats.Msg) (gap bool) {
	seq, err := strconv.ParseUint(header(m, jetstream.SequenceHeader), 10, 64)
	if err != nil {
		return false // the server numbers what it repeats: it is somebody else's
	}
	subject, ok := strings.CutPrefix(m.Subject, livePrefix)
	if !ok {
		return false
	}
	_, isNews := l.take("ringwall."+subject, m.Data, seq)
	switch {
	case l.created.IsZero(): // nothing was fetched yet
		return false
	case seq <= l.last: // it was fetched already, or the stream begins anew
		return isNews
	case seq == l.last+1:
		l.setLast(seq)
		return false
	}
	return true
}

func (l *link) setLast(seq uint64) {
	l.last = seq
	l.setStatus(func(s *Status) { s.Sequence = seq })
}

// take merges what has a number in the stream, and says whether it is news. What is not taken has no key.
func (f *Fleet) take(subject string, data []byte, seq uint64) (r record.Record, isNews bool) {
	if node, ok := record.ParseForget(f.cfg.Name, subject); ok {
		return r, f.void(node)
	}
	key, err := record.ParseSubject(f.cfg.Name, subject)
	if err == nil && key.Node != f.cfg.Node && !slices.Contains(f.cfg.Accept, key.Kind) {
		return record.Record{}, false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.isForgottenLocked(key.Node, seq) {
		return record.Record{}, false
	}
	now := f.cfg.Now()
	if err == nil {
		r, err = record.Decode(key, data)
	}
	if err != nil {
		if record.IsName(key.Node) {
			f.book.Refuse(now, key.Node, err)
		}
		return record.Record{}, false
	}
	if isNews, err = f.book.Put(now, r); err != nil {
		return record.Record{}, false
	}
	if isNews {
		f.changed[r.Prefix] = struct{}{}
		mailbox.Signal(f.hasChange)
	}
	return r, isNews
}

// catchUp fetches what was missed.
func (l *link) catchUp(ctx context.Context) error {
	if !l.nc.IsConnected() {
		return nil // connected will ask for it
	}
	created, last, err := l.stream(ctx)
	if err != nil {
		return err
	}
	fresh := !created.Equal(l.created) || last < l.last // another stream, or one of before
	if fresh {
		l.created = created
		l.setLast(0)
	}
	l.resolveForgotten(created, last)
	stored := make(map[record.Key]time.Time) // what the server has of ours
	ofOurs := func(r record.Record) {
		if r.Node == l.cfg.Node {
			stored[r.Key] = r.Made
		}
	}
	for tries := 0; ; tries++ {
		for more := true; more; {
			if more, err = l.fetchSome(ctx, ofOurs); err != nil {
				return err
			}
		}
		if l.last >= last || tries == laggingTries {
			break
		}
		// Of several servers any may answer, and one may not have the latest yet; or the latest is purged, or over.
		select {
		case <-time.After(laggingTime):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	l.setLast(max(l.last, last))
	l.mu.Lock()
	if fresh {
		for _, r := range l.book.Own(l.cfg.Now()) {
			if at, ok := stored[r.Key]; slices.Contains(l.cfg.Share, r.Kind) && (!ok || at.Before(r.Made)) {
				l.outbox.put(r)
			}
		}
	}
	l.status.CaughtUp = true
	if len(l.voided) > 0 {
		mailbox.Signal(l.hasChange)
	}
	if !strings.HasPrefix(l.status.Error, "send: ") {
		l.status.Error = ""
	}
	l.mu.Unlock()
	mailbox.Signal(l.toSend)
	return nil
}

// stream returns when the stream was made, and the number of the last message in it. One that is missing is made.
func (l *link) stream(ctx context.Context) (created time.Time, last uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	s, err := l.js.Stream(ctx, StreamName(l.cfg.Name))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		s, err = l.js.CreateStream(ctx, StreamConfig(l.cfg.Name))
	}
	if err != nil {
		return time.Time{}, 0, fmt.Errorf("stream %s: %w", StreamName(l.cfg.Name), err)
	}
	info := s.CachedInfo()
	if !info.Config.AllowDirect || info.Config.RePublish == nil {
		return time.Time{}, 0, fmt.Errorf("stream %s: it lacks allow_direct or republish", StreamName(l.cfg.Name))
	}
	return info.Created, info.State.LastSeq, nil
}

// getRequest is a request of JetStream's for stored messages (server/jetstream_api.go: JSApiMsgGetRequest). It names no
// subject: of those, the server would count all that are left with each batch (server/filestore.go: NumPending).
type getRequest struct {
	Seq   uint64 `json:"seq"`
	Batch int    `json:"batch"`
}

// fetchSome takes some of what comes after l.last, and says whether there is more.
func (l *link) fetchSome(ctx context.Context, each func(record.Record)) (more bool, err error) {
	request, err := json.Marshal(getRequest{Seq: l.last + 1, Batch: fetchBatch})
	if err != nil {
		return false, err
	}
	inbox := l.nc.NewInbox()
	sub, err := l.nc.SubscribeSync(inbox)
	if err != nil {
		return false, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := l.nc.PublishRequest("$JS.API.DIRECT.GET."+StreamName(l.cfg.Name), inbox, request); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	for range fetchBatch + 1 {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return false, fmt.Errorf("what was missed: %w", err)
		}
		status := header(m, "Status")
		if header(m, jetstream.SequenceHeader) != "" {
			status = "" // of a record: whoever published it wrote that
		}
		switch status {
		case "":
		case "204": // end of the batch
			pending, err := strconv.ParseUint(header(m, "Nats-Num-Pending"), 10, 64)
			if err != nil {
				return false, errors.New("what was missed: the server does not say how much is left")
			}
			return pending > 0, nil
		case "404": // there is nothing
			return false, nil
		default:
			return false, fmt.Errorf("what was missed: the server answers %s %.100s", status, header(m, "Description"))
		}
		seq, err := strconv.ParseUint(header(m, jetstream.SequenceHeader), 10, 64)
		if err != nil || seq <= l.last {
			return false, errors.New("what was missed: the server's answer makes no sense")
		}
		r, _ := l.take(header(m, jetstream.SubjectHeader), m.Data, seq)
		each(r)
		l.setLast(seq)
	}
	return false, errors.New("what was missed: the server sends more than it was asked for")
}

// sendAll tells the server what the outbox holds, until ctx ends.
func (l *link) sendAll(ctx context.Context) {
	wait := retryLeast
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.toSend:
		}
		for ctx.Err() == nil && l.knowsStream() {
			more, err := l.sendSome(ctx)
			if err == nil {
				if wait = retryLeast; !more {
					break
				}
				continue
			}
			l.failed(fmt.Errorf("send: %w", err))
			mailbox.Signal(l.fetch) // which makes a stream that is gone
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
			wait = min(2*wait, retryMost)
		}
	}
}

// knowsStream says whether there is a stream to tell something to; catchUp wakes sendAll once there is.
func (f *Fleet) knowsStream() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status.CaughtUp
}

// sendSome sends some of the outbox, and takes out what the server has.
func (l *link) sendSome(ctx context.Context) (more bool, err error) {
	l.mu.Lock()
	batch, waits := l.outbox.next(l.cfg.Now(), sendBatch), l.outbox.len() > 0
	l.mu.Unlock()
	if len(batch) == 0 && waits { // until others take more of this node
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
	if len(batch) == 0 {
		return waits, nil
	}
	futures := make([]jetstream.PubAckFuture, 0, len(batch))
	for _, r := range batch {
		data, err := record.Encode(r)
		if err != nil { // Say has looked
			return false, err
		}
		m := &nats.Msg{Subject: r.Subject(l.cfg.Name), Data: data}
		options := []jetstream.PublishOpt{jetstream.WithExpectStream(StreamName(l.cfg.Name)),
			jetstream.WithRetryAttempts(0)}
		if !r.Until.IsZero() {
			life := r.Until.Sub(l.cfg.Now()) + record.KeptAfter
			options = append(options, jetstream.WithMsgTTL(life.Round(time.Second)))
		}
		future, err := l.js.PublishMsgAsync(m, options...)
		if err != nil {
			return false, err
		}
		futures = append(futures, future)
	}
	timeout := time.NewTimer(answerTime)
	defer timeout.Stop()
	for i, future := range futures {
		select {
		case <-future.Ok():
			l.confirm(batch[i])
		case err = <-future.Err():
		case <-timeout.C:
			return false, errors.New("the server does not confirm what it was told: is its disk full?")
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil && strings.HasPrefix(l.status.Error, "send: ") {
		l.status.Error = ""
	}
	return l.outbox.len() > 0, err
}

// confirm takes out of the outbox what the server has, unless there is a later word.
func (f *Fleet) confirm(r record.Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.outbox.confirm(r)
	if f.keepsUnsent && len(f.outbox.others.records) == 0 {
		f.unsaved = true
	}
}

package api

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/ringwall/ringwall/pkg/ban"
)

// slowLists is a backend whose lists take their time.
type slowLists struct {
	fake
	bans func(ctx context.Context, each func([]ban.Ban) error) error
}

func (s *slowLists) Bans(ctx context.Context, _ BanFilter, each func([]ban.Ban) error) error {
	return s.bans(ctx, each)
}

func manyBans(n int) []ban.Ban {
	list := make([]ban.Ban, n)
	for i := range list {
		list[i].Prefix = netip.MustParsePrefix(fmt.Sprintf("32.%d.%d.%d/32", i>>16, i>>8&255, i&255))
	}
	return list
}

// The first lines are there before the last are made: neither side holds the list.
func TestALongListIsReadWhileItIsMade(t *testing.T) {
	seen := make(chan struct{})
	r := start(t, &slowLists{bans: func(_ context.Context, each func([]ban.Ban) error) error {
		if err := each(manyBans(1000)); err != nil {
			return err
		}
		<-seen
		return each(manyBans(1000))
	}}, nil)
	n := 0
	err := r.client.EachBan(t.Context(), BanFilter{}, func(ban.Ban) error {
		if n++; n == 100 {
			close(seen)
		}
		return nil
	})
	if err != nil || n != 2000 {
		t.Errorf("%d lines, %v", n, err)
	}
}

// A list that takes longer than one answer may is no failure while it goes on.
func TestALongListMayTakeLong(t *testing.T) {
	r := start(t, &slowLists{bans: func(ctx context.Context, each func([]ban.Ban) error) error {
		for range 20 {
			select {
			case <-time.After(20 * time.Millisecond): // longer than backend, all in all
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := each(manyBans(100)); err != nil {
				return err
			}
		}
		return nil
	}}, func(s *Server) { s.limits.backend = 50 * time.Millisecond })
	if list, err := r.client.Bans(t.Context(), BanFilter{}); err != nil || len(list) != 2000 {
		t.Errorf("%d lines, %v", len(list), err)
	}
}

// Half a list is never taken for all of it.
func TestAListThatBreaksOffIsAnError(t *testing.T) {
	r := start(t, &fake{list: manyBans(5000), broken: errors.New("no more")}, nil)
	if list, err := r.client.Bans(t.Context(), BanFilter{}); err == nil || list != nil {
		t.Errorf("%d lines, %v", len(list), err)
	}
}

// Who asks and goes away, or reads no further, ends the work.
func TestWhoStopsReadingEndsTheList(t *testing.T) {
	ended := make(chan error, 1)
	r := start(t, &slowLists{bans: func(_ context.Context, each func([]ban.Ban) error) error {
		for {
			if err := each(manyBans(1000)); err != nil {
				ended <- err
				return err
			}
		}
	}}, nil)
	enough := errors.New("enough")
	if err := r.client.EachBan(t.Context(), BanFilter{}, func(ban.Ban) error { return enough }); !errors.Is(err,
		enough) {
		t.Errorf("%v", err)
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("the list is still being made")
	}
}

// A daemon that says nothing for too long is not waited for, also in the middle of a list.
func TestASilentListIsNotWaitedFor(t *testing.T) {
	r := start(t, &slowLists{bans: func(ctx context.Context, each func([]ban.Ban) error) error {
		if err := each(manyBans(1000)); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}}, nil)
	r.client.Timeout = 100 * time.Millisecond
	if _, err := r.client.Bans(t.Context(), BanFilter{}); !errors.Is(err, ErrTimeout) {
		t.Errorf("%v", err)
	}
}

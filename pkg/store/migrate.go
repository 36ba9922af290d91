package store

import (
	"encoding/json"
	"net/netip"
	"time"

	"go.etcd.io/bbolt"

	"github.com/ringwall/ringwall/pkg/ban"
)

// migrate brings a file up to the present version, in one transaction.
func migrate(from int) func(tx *bbolt.Tx) error {
	return func(tx *bbolt.Tx) error {
		if from < 1 {
			if err := fromJSON(tx); err != nil {
				return err
			}
		}
		return initialize(tx, schema)
	}
}

// Version 0 kept bans and allow entries as JSON by the text of their prefix.
type (
	banJSON struct {
		Prefix   netip.Prefix `json:"prefix"`
		Source   netip.Addr   `json:"source"`
		Since    time.Time    `json:"since"`
		Until    time.Time    `json:"until"`
		Reason   string       `json:"reason"`
		Score    float64      `json:"score"`
		Proven   bool         `json:"proven"`
		Manual   bool         `json:"manual"`
		Number   int          `json:"number"`
		Comment  string       `json:"comment"`
		PBX      string       `json:"pbx"`
		Attempts int          `json:"attempts"`
	}
	allowJSON struct {
		Prefix netip.Prefix `json:"prefix"`
		Host   string       `json:"host"`
		Added  time.Time    `json:"added"`
		By     string       `json:"by"`
		Note   string       `json:"note"`
	}
)

// fromJSON replaces the records of version 0. What cannot be read is left out.
func fromJSON(tx *bbolt.Tx) error {
	var changes []Change
	read := func(k kind, one func(value []byte) (Change, error)) error {
		b := tx.Bucket(k.bucket())
		if b == nil {
			return nil
		}
		err := b.ForEach(func(_, value []byte) error {
			if c, err := one(value); err == nil && c.err == nil {
				changes = append(changes, c)
			}
			return nil
		})
		if err != nil {
			return err
		}
		return tx.DeleteBucket(k.bucket())
	}
	err := read(kindBan, func(value []byte) (Change, error) {
		var v banJSON
		err := json.Unmarshal(value, &v)
		return PutBan(ban.Ban{Prefix: v.Prefix, Source: v.Source, Since: v.Since, Until: v.Until,
			Reason: ban.Reason(v.Reason), Score: v.Score,
			Proven: v.Proven, Manual: v.Manual, Number: v.Number, Comment: v.Comment, PBX: v.PBX, Attempts: v.Attempts}), err
	})
	if err != nil {
		return err
	}
	err = read(kindAllow, func(value []byte) (Change, error) {
		var v allowJSON
		err := json.Unmarshal(value, &v)
		return PutAllow(Allow{Prefix: v.Prefix, Host: v.Host, Added: v.Added, By: v.By, Note: v.Note}), err
	})
	if err != nil {
		return err
	}
	if err := initialize(tx, 0); err != nil {
		return err
	}
	return replaceRecords(tx, changes)
}

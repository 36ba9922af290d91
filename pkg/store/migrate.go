package store

import (
	"encoding/json"
	"net/netip"

	"go.etcd.io/bbolt"

	"github.com/ringwall/ringwall/pkg/ban"
)

// migrateFrom brings a file up to the present version, in one transaction.
func migrateFrom(from int) func(tx *bbolt.Tx) error {
	return func(tx *bbolt.Tx) error {
		if from < 1 {
			if err := fromJSON(tx); err != nil {
				return err
			}
		}
		return makeBuckets(tx, schema)
	}
}

// banVersion0 is a ban as version 0 kept it: in JSON, by the text of its prefix, with its source.
type banVersion0 struct {
	ban.Ban
	Source netip.Addr `json:"source"`
}

// fromJSON replaces the records of version 0. What cannot be read is left out.
func fromJSON(tx *bbolt.Tx) error {
	var changes []Change
	read := func(k kind, one func(value []byte) (Change, error)) error {
		b := tx.Bucket(k.bucketName())
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
		return tx.DeleteBucket(k.bucketName())
	}
	err := read(kindBan, func(value []byte) (Change, error) {
		var v banVersion0
		err := json.Unmarshal(value, &v)
		v.Ban.Source = v.Source
		return PutBan(v.Ban), err
	})
	if err != nil {
		return err
	}
	err = read(kindAllow, func(value []byte) (Change, error) {
		var a Allow
		err := json.Unmarshal(value, &a)
		return PutAllow(a), err
	})
	if err != nil {
		return err
	}
	if err := makeBuckets(tx, 0); err != nil {
		return err
	}
	return replaceRecords(tx, changes)
}

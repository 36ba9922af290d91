package fail2ban

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	_ "modernc.org/sqlite" // the driver named "sqlite"
)

// Bounds of what is read from a database.
const (
	maxRows   = 1_000_000
	maxText   = 255 // characters of a name or an address; a longer one is no address
	readLimit = time.Minute
)

// row is a ban as the table bips has it.
type row struct {
	ip, jail string
	since    int64 // seconds since 1970
	length   int64 // seconds; below zero for ever; noTime where fail2ban does not know
	count    int64 // the how manieth ban it is
}

// noTime is the bantime of rows that came from a database without one (server/database.py).
const noTime = -2

// contents are what a database tells.
type contents struct {
	version int64
	rows    []row
	voip    map[string]bool // addresses that a jail of telephony has banned at some time
	more    bool            // there are more rows than maxRows
	note    string
}

// readDatabase reads the bans of fail2ban 0.11 to 1.1 (schema 4): those that end after now. isVoIP chooses the jails
// whose history is read.
func readDatabase(ctx context.Context, path string, now time.Time, isVoIP func(jail string) bool) (_ *contents, err error) {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	snap, err := openSnapshot(ctx, path)
	if err != nil {
		return nil, err
	}
	defer snap.close()
	db, err := sql.Open("sqlite", snap.uri)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	db.SetMaxOpenConns(1)
	// The file may be anybody's: its schema must not call functions, and a broken page is an error.
	for _, pragma := range []string{"trusted_schema=OFF", "cell_size_check=ON", "query_only=ON", "temp_store=MEMORY"} {
		if _, err := db.ExecContext(ctx, "PRAGMA "+pragma); err != nil {
			return nil, fmt.Errorf("the database cannot be read: %w", err)
		}
	}
	c := &contents{note: snap.note, voip: map[string]bool{}}
	if err := c.check(ctx, db); err != nil {
		return nil, err
	}
	if err := c.current(ctx, db, now); err != nil {
		return nil, fmt.Errorf("the bans cannot be read: %w", err)
	}
	if err := c.history(ctx, db, isVoIP); err != nil {
		return nil, fmt.Errorf("the past bans cannot be read: %w", err)
	}
	return c, nil
}

// ErrSchema is a database that is not fail2ban's, or of a version that this package does not know.
var ErrSchema = errors.New("not a database of fail2ban 0.11 to 1.1")

func (c *contents) check(ctx context.Context, db *sql.DB) error {
	tables := map[string]bool{}
	rows, err := db.QueryContext(ctx, `SELECT name FROM sqlite_master WHERE type = 'table' AND name IN ('fail2banDb', 'bips', 'bans') LIMIT 3`)
	if err != nil {
		return fmt.Errorf("the database cannot be read: %w", err)
	}
	err = each(rows, func() error {
		var name string
		err := rows.Scan(&name)
		tables[name] = true
		return err
	})
	switch {
	case err != nil:
		return fmt.Errorf("the database cannot be read: %w", err)
	case !tables["fail2banDb"]:
		return fmt.Errorf("%w: it has no table fail2banDb", ErrSchema)
	}
	if err := db.QueryRowContext(ctx, `SELECT CAST(version AS INTEGER) FROM fail2banDb LIMIT 1`).Scan(&c.version); err != nil {
		return fmt.Errorf("%w: it does not tell its version: %w", ErrSchema, err)
	}
	switch {
	case !tables["bips"]:
		return fmt.Errorf("%w: its version is %d, without the table bips; start a newer fail2ban once, which converts it", ErrSchema, c.version)
	case !tables["bans"]:
		return fmt.Errorf("%w: it has no table bans", ErrSchema)
	}
	return nil
}

// current reads what fail2ban's own getCurrentBans does. SQLite's columns hold what they like, hence the casts.
func (c *contents) current(ctx context.Context, db *sql.DB, now time.Time) error {
	const ask = `SELECT substr(CAST(ip AS TEXT), 1, ?), substr(CAST(jail AS TEXT), 1, ?), CAST(timeofban AS INTEGER),
		CAST(bantime AS INTEGER), CAST(bancount AS INTEGER) FROM bips
		WHERE CAST(bantime AS INTEGER) < 0 OR CAST(timeofban AS REAL) + CAST(bantime AS REAL) > ? LIMIT ?`
	rows, err := db.QueryContext(ctx, ask, maxText+1, maxText+1, float64(now.UnixMilli())/1000, maxRows+1)
	if err != nil {
		return err
	}
	return each(rows, func() error {
		var ip, jail sql.NullString
		var since, length, count sql.NullInt64
		if err := rows.Scan(&ip, &jail, &since, &length, &count); err != nil {
			return err
		}
		if len(c.rows) == maxRows {
			c.more = true
			return nil
		}
		c.rows = append(c.rows, row{ip.String, jail.String, since.Int64, length.Int64, count.Int64})
		return nil
	})
}

// history remembers whom the jails of telephony have banned, for the jails that punish repeated offenders.
func (c *contents) history(ctx context.Context, db *sql.DB, isVoIP func(string) bool) error {
	var names []string
	rows, err := db.QueryContext(ctx, `SELECT DISTINCT CAST(jail AS TEXT) FROM bans LIMIT 10000`)
	if err != nil {
		return err
	}
	err = each(rows, func() error {
		var name sql.NullString
		err := rows.Scan(&name)
		if name.Valid && isVoIP(name.String) {
			names = append(names, name.String)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		rows, err := db.QueryContext(ctx, `SELECT DISTINCT substr(CAST(ip AS TEXT), 1, ?) FROM bans WHERE jail = ? LIMIT ?`, maxText+1, name, maxRows)
		if err != nil {
			return err
		}
		err = each(rows, func() error {
			var ip sql.NullString
			err := rows.Scan(&ip)
			if len(c.voip) < maxRows {
				c.voip[ip.String] = true
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func each(rows *sql.Rows, one func() error) error {
	for rows.Next() {
		if err := one(); err != nil {
			return errors.Join(err, rows.Close())
		}
	}
	return errors.Join(rows.Err(), rows.Close())
}

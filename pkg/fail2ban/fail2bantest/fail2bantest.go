// Package fail2bantest makes databases such as fail2ban's, by the interpreter that fail2ban itself needs.
package fail2bantest

import (
	"bufio"
	"encoding/json"
	"io"
	"os/exec"
	"testing"
)

// Schema is version 4 of fail2ban's database: 0.11, 1.0 and 1.1 (server/database.py).
var Schema = []string{
	`CREATE TABLE fail2banDb(version INTEGER)`,
	`CREATE TABLE jails(name TEXT NOT NULL UNIQUE, enabled INTEGER NOT NULL DEFAULT 1)`,
	`CREATE TABLE logs(jail TEXT NOT NULL, path TEXT, firstlinemd5 TEXT, lastfilepos INTEGER DEFAULT 0,
		FOREIGN KEY(jail) REFERENCES jails(name) ON DELETE CASCADE, UNIQUE(jail, path), UNIQUE(jail, path, firstlinemd5))`,
	`CREATE TABLE bans(jail TEXT NOT NULL, ip TEXT, timeofban INTEGER NOT NULL, bantime INTEGER NOT NULL,
		bancount INTEGER NOT NULL default 1, data JSON, FOREIGN KEY(jail) REFERENCES jails(name))`,
	`CREATE TABLE bips(ip TEXT NOT NULL, jail TEXT NOT NULL, timeofban INTEGER NOT NULL, bantime INTEGER NOT NULL,
		bancount INTEGER NOT NULL default 1, data JSON, PRIMARY KEY(ip, jail), FOREIGN KEY(jail) REFERENCES jails(name))`,
	`INSERT INTO fail2banDb VALUES(4)`,
}

const program = `
import base64, json, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
for line in sys.stdin:
    statement, values = json.loads(line)
    try:
        db.execute(statement, [base64.b64decode(v) if isinstance(v, str) else v for v in values or []]).fetchall()
        print(json.dumps(""), flush=True)
    except sqlite3.Error as e:
        print(json.dumps(str(e)), flush=True)
db.close()
`

// DB is a database that another process has open.
type DB struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	out   *bufio.Reader
	ended bool
}

// Open opens a database, which is new where there is no file, until Close or the test's end.
func Open(t *testing.T, path string, statements ...string) *DB {
	t.Helper()
	db := &DB{t: t, cmd: exec.Command("/usr/bin/python3", "-I", "-c", program, path)}
	var err error
	if db.in, err = db.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := db.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	db.out = bufio.NewReader(out)
	if err := db.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.close() })
	for _, s := range statements {
		db.Exec(s)
	}
	return db
}

// Exec runs a statement. A text among its values is a blob for SQLite, so that it may be any bytes: CAST(? AS TEXT).
func (db *DB) Exec(statement string, values ...any) {
	db.t.Helper()
	for i, v := range values {
		if text, ok := v.(string); ok {
			values[i] = []byte(text)
		}
	}
	line, err := json.Marshal([]any{statement, values})
	if err != nil {
		db.t.Fatal(err)
	}
	if _, err := db.in.Write(append(line, '\n')); err != nil {
		db.t.Fatal(err)
	}
	answer, err := db.out.ReadString('\n')
	var trouble string
	if err == nil {
		err = json.Unmarshal([]byte(answer), &trouble)
	}
	if err != nil || trouble != "" {
		db.t.Fatalf("%s: %v%s", statement, err, trouble)
	}
}

// Ban enters a ban that begins at a time, in seconds since 1970, and lasts for some, or for ever where that is -1.
func (db *DB) Ban(jail, ip string, since, length int64) {
	db.t.Helper()
	for _, table := range []string{"INTO bans", "OR REPLACE INTO bips"} {
		db.Exec("INSERT "+table+"(jail, ip, timeofban, bantime, data) VALUES(CAST(? AS TEXT), CAST(? AS TEXT), ?, ?, "+
			"'{}')",
			jail, ip, since, length)
	}
}

// Close closes the database as a program does that ends in order.
func (db *DB) Close() {
	db.t.Helper()
	if err := db.close(); err != nil {
		db.t.Fatal(err)
	}
}

func (db *DB) close() error {
	if db.ended {
		return nil
	}
	db.ended = true
	_ = db.in.Close()
	return db.cmd.Wait()
}

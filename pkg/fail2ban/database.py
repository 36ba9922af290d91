# Prints what a database of fail2ban's tells, a line of fields between tabs for each thing; texts are in hexadecimal:
#
#   note TEXT                           how it was read, where that is special
#   table NAME                          of those that matter
#   version NUMBER
#   ban IP JAIL SINCE LENGTH            in force; seconds since 1970, and seconds
#   past IP JAIL                        at any time, of an address that a jail named recidive bans
#
# Arguments: the database, a folder for a copy, and the limits below. The database stays as it is. Nobody writes to it
# while it is read, as this holds SQLite's own lock; where that is impossible, a copy is read, on which SQLite may do
# its repairs.
import os
import shutil
import sqlite3
import sys
import urllib.parse

path, folder = sys.argv[1:3]
now, patience = map(float, sys.argv[3:5])
most_rows, most_text, most_bytes = map(int, sys.argv[5:])
# SQLite's columns hold what they like, hence the casts.
text = "hex(substr(CAST(%%s AS TEXT), 1, %d))" % (most_text + 1)
number = "coalesce(CAST(%s AS INTEGER), 0)"


def connect(path, mode):
    uri = "file:%s?%s" % (urllib.parse.quote(os.path.abspath(path)), mode)
    db = sqlite3.connect(uri, uri=True, timeout=patience, isolation_level=None)
    # The file may be anybody's: its schema must not call functions, and a broken page is an error.
    for pragma in "trusted_schema=OFF", "cell_size_check=ON", "query_only=ON", "temp_store=MEMORY":
        db.execute("PRAGMA " + pragma)
    db.execute("BEGIN")
    db.execute("SELECT count(*) FROM sqlite_master").fetchone()  # takes the lock
    return db


def size(path):
    return os.path.getsize(path) if os.path.exists(path) else 0


def copy():
    ends = [end for end in ("", "-wal", "-journal") if size(path + end)]
    if sum(size(path + end) for end in ends) > most_bytes:
        sys.exit("it is larger than %d bytes" % most_bytes)
    for end in ends:
        shutil.copyfile(path + end, os.path.join(folder, "db" + end))
    return connect(os.path.join(folder, "db"), "mode=rw")


def open_database():
    journal = "the database has a journal beside it, so a copy of both was read"
    if os.path.exists(path + "-wal"):
        say("note", journal)
        return copy()
    with open(path, "rb") as f:
        write_ahead = f.read(19)[18:] == b"\x02"  # https://sqlite.org/fileformat.html#file_format_version_numbers
    try:
        # Where a log is to be written ahead and there is none, nobody writes; to read without a word of that begins one.
        return connect(path, "mode=ro&immutable=1" if write_ahead else "mode=ro")
    except sqlite3.OperationalError as e:
        say("note", "another program was writing to the database all the time, so a copy was read; it may lack the last bans"
            if "locked" in str(e) else journal)
        return copy()


def say(*fields):
    print(*fields, sep="\t")


def main():
    db = open_database()
    tables = [name for name, in db.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name IN ('fail2banDb', 'bips', 'bans') LIMIT 3")]
    for name in tables:
        say("table", name)
    if "fail2banDb" in tables:
        for version, in db.execute("SELECT " + number % "version" + " FROM fail2banDb WHERE version IS NOT NULL LIMIT 1"):
            say("version", version)
    if len(tables) < 3:
        return
    # As fail2ban's own getCurrentBans (server/database.py).
    for row in db.execute(
            "SELECT %s, %s, %s, %s FROM bips WHERE CAST(bantime AS INTEGER) < 0"
            " OR CAST(timeofban AS REAL) + CAST(bantime AS REAL) > ? LIMIT ?"
            % (text % "ip", text % "jail", number % "timeofban", number % "bantime"), (now, most_rows + 1)):
        say("ban", *row)
    for row in db.execute(
            "SELECT DISTINCT %s, %s FROM bans WHERE ip IN (SELECT ip FROM bips WHERE jail LIKE '%%recidive%%') LIMIT ?"
            % (text % "ip", text % "jail"), (most_rows,)):
        say("past", *row)


try:
    main()
except (sqlite3.Error, OSError) as e:
    sys.exit(str(e))

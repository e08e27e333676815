"""The tables of a store."""

from __future__ import annotations

import sqlite3

import toyiwae

FORMAT = 2
"""Version of the tables below."""

APPLICATION = 0x74795357
"""What SQLite files of sweeps have as their application."""

TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE commons (id INTEGER PRIMARY KEY, settings TEXT NOT NULL UNIQUE);
CREATE TABLE cells (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, common INTEGER NOT NULL, own TEXT NOT NULL);
CREATE TABLE plan (position INTEGER PRIMARY KEY, place INTEGER NOT NULL UNIQUE, cell INTEGER NOT NULL UNIQUE,
    state INTEGER NOT NULL, blocks INTEGER NOT NULL);
CREATE TABLE origins (id INTEGER PRIMARY KEY, record TEXT NOT NULL UNIQUE);
CREATE TABLE blocks (cell INTEGER, block INTEGER, origin INTEGER NOT NULL, seconds REAL NOT NULL, row TEXT NOT NULL,
    PRIMARY KEY (cell, block)) WITHOUT ROWID;
CREATE TABLE failures (cell INTEGER, block INTEGER, origin INTEGER NOT NULL, error TEXT NOT NULL,
    traceback TEXT NOT NULL, PRIMARY KEY (cell, block)) WITHOUT ROWID;
"""


def make(connection: sqlite3.Connection) -> None:
    """The tables, all or none of them."""
    connection.executescript(
        f"PRAGMA journal_mode = DELETE; BEGIN IMMEDIATE; {TABLES} INSERT INTO facts VALUES ('made by', "
        f"'{toyiwae.__version__}'); PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT}; COMMIT;"
    )

# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of PostgreSQL as their tests use them: something of everything, taken, and compared. No test lives here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Backup, Manner, Sheltered
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import backups
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution, Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Dump
from tests.fleet import Server

from .pg import Used, use

Make = Callable[[Server], str]
WHOLE = """
CREATE SCHEMA "o""dd";
CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE SEQUENCE counter START 41 INCREMENT 7;
SELECT nextval('counter'), nextval('counter');
CREATE TABLE t (id int PRIMARY KEY, name text COLLATE "C" NOT NULL, data bytea, feeling mood, n positive,
                twice int GENERATED ALWAYS AS (id * 2) STORED, at timestamptz, doc jsonb, amount numeric(20, 6));
INSERT INTO t (id, name, data, feeling, n, at, doc, amount)
SELECT i, repeat(chr(128512), i % 3) || E'\\t\\n\\\\.\\n' || i,
       decode(lpad(to_hex(i), 8, '0'), 'hex') || '\\x000aff'::bytea,
       CASE i % 2 WHEN 0 THEN 'glad' ELSE 'sad' END::mood, i, '2026-01-01'::timestamptz + i * interval '1 hour',
       jsonb_build_object('a', i, 'b', ARRAY[1, NULL]), i / 7.0
  FROM generate_series(1, 500) i;
CREATE TABLE "o""dd"."O'hara; DROP -- \n x" ("co;l" int, "sel""ect" text);
INSERT INTO "o""dd"."O'hara; DROP -- \n x" VALUES (1, NULL), (2, ''), (3, '\\.'), (4, '\\N');
CREATE TABLE empty (a int);
CREATE TABLE nothing ();
CREATE TABLE p (id int, day date NOT NULL, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
CREATE TABLE p_d PARTITION OF p DEFAULT;
INSERT INTO p SELECT i, '2026-01-01'::date + i FROM generate_series(1, 60) i;
CREATE TABLE h (feeling mood, id int) PARTITION BY HASH (feeling);
CREATE TABLE h_0 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE h_1 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO h SELECT CASE i % 2 WHEN 0 THEN 'glad' ELSE 'sad' END::mood, i FROM generate_series(1, 10) i;
CREATE TABLE child () INHERITS (empty);
INSERT INTO child VALUES (7);
ALTER TABLE t ADD COLUMN parent int REFERENCES t;
CREATE INDEX ON t (lower(name)) WHERE id > 3;
CREATE VIEW v AS SELECT id, name FROM t WHERE id < 10;
CREATE MATERIALIZED VIEW m AS SELECT count(*) AS n FROM t;
CREATE FUNCTION f(int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
COPY public.fake (a) FROM stdin;
RETURN $1 + 1; END $$;
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.a := NEW.a + 1; RETURN NEW; END';
CREATE TRIGGER tell BEFORE INSERT ON empty FOR EACH ROW EXECUTE FUNCTION tell();
COMMENT ON TABLE t IS 'it''s; a comment';
ALTER TABLE t ENABLE ROW LEVEL SECURITY;
CREATE POLICY few ON t TO {role} USING (id < 5);
GRANT SELECT ON t TO {role};
SELECT lo_from_bytea(4711, decode(repeat('00ff0a27', 20000), 'hex')), lo_from_bytea(4712, '');
"""
# Everything a database consists of, in words that do not depend on oids.
DESCRIPTION = """
SELECT 'column', a.attrelid::regclass::text, a.attnum::text, a.attname, format_type(a.atttypid, a.atttypmod),
       a.attgenerated::text || a.attnotnull::text || a.attcollation::regcollation::text,
       pg_get_expr(d.adbin, d.adrelid)
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d ON (adrelid, adnum) = (c.oid, attnum)
 WHERE c.oid >= 16384 AND attnum > 0 AND c.relkind IN ('r', 'p', 'v', 'm')
UNION ALL SELECT 'class', c.oid::regclass::text, c.relkind::text, c.relrowsecurity::text, c.relacl::text,
       pg_get_userbyid(c.relowner), obj_description(c.oid) FROM pg_class c
 WHERE c.oid >= 16384 AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
UNION ALL SELECT 'index', indexrelid::regclass::text, pg_get_indexdef(indexrelid), '', '', '', '' FROM pg_index
 WHERE indexrelid >= 16384 AND NOT indrelid::regclass::text LIKE 'pg_toast%'
UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', '', ''
  FROM pg_constraint WHERE oid >= 16384
UNION ALL SELECT 'function', oid::regprocedure::text, pg_get_functiondef(oid), '', '', '', '' FROM pg_proc
 WHERE oid >= 16384 AND prokind = 'f'
UNION ALL SELECT 'trigger', tgrelid::regclass::text, pg_get_triggerdef(oid), '', '', '', '' FROM pg_trigger
 WHERE NOT tgisinternal
UNION ALL SELECT 'policy', polrelid::regclass::text, polname, pg_get_expr(polqual, polrelid),
       (SELECT string_agg(rolname, ',') FROM pg_roles WHERE oid = ANY (polroles)), '', '' FROM pg_policy
UNION ALL SELECT 'view', oid::regclass::text, pg_get_viewdef(oid), '', '', '', '' FROM pg_class
 WHERE oid >= 16384 AND relkind IN ('v', 'm')
UNION ALL SELECT 'enum', enumtypid::regtype::text, enumlabel, '', '', '', '' FROM pg_enum
UNION ALL SELECT 'sequence', schemaname, sequencename, last_value::text, increment_by::text, '', '' FROM pg_sequences
UNION ALL SELECT 'large object', loid::text, md5(string_agg(data, '' ORDER BY pageno)), '', '', '', ''
  FROM pg_largeobject GROUP BY loid
UNION ALL SELECT 'large objects', count(*)::text, '', '', '', '', '' FROM pg_largeobject_metadata
UNION ALL SELECT 'database', pg_encoding_to_char(encoding), datcollate, datctype, pg_get_userbyid(datdba),
       (SELECT string_agg(a::text, ' ' ORDER BY a::text) FROM unnest(datacl) a),
       shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()
UNION ALL SELECT 'setting', setconfig::text, '', '', '', '', '' FROM pg_db_role_setting
  JOIN pg_database d ON d.oid = setdatabase WHERE datname = current_database() AND setrole = 0
 ORDER BY 1, 2, 3, 4, 5
"""
# Rows of a partition by hash of an enum belong into another one where the enum has another oid.
TABLES = r"""
SELECT CASE c.relkind WHEN 'p' THEN '' ELSE 'ONLY ' END || c.oid::regclass::text FROM pg_class c
 WHERE c.oid >= 16384 AND (c.relkind IN ('r', 'm') AND c.relname NOT LIKE 'h\_%' OR c.relname = 'h')
   AND c.relnamespace <> 'pg_toast'::regnamespace ORDER BY 1
"""


def content(server: Server, database: str) -> list[list[str]]:
    """What a database holds: its description, and a checksum of each table."""
    described = server.sql(DESCRIPTION, database=database)
    for (table,) in server.sql(TABLES, database=database):
        rows = f"SELECT count(*), md5(coalesce(string_agg(x::text, '|' ORDER BY x::text), '')) FROM {table} x"
        described += [["rows", table, *row] for row in server.sql(rows, database=database)]
    return described


def manner(folder: Path, **more: Any) -> Manner:
    return Manner(str(folder))._replace(**more)


def shelf(folder: Path) -> list[Backup]:
    found = backups.look(Sheltered(str(folder)))
    assert not found.why_not
    assert (found.broken, found.unfinished) == ((), ())
    return list(found.backups)


def using(server: Server, execution: Execution | None = None, **params: Any) -> Used:
    """The engine with client programs of the server's own version."""
    return use(server, execution, **{"bin_dir": str(server.installation.bin_dir), **params})


def taken(pg: Used, database: str, folder: Path, **more: Any) -> Backup:
    """A backup of the database, read back from its manifest."""
    task = Dump(Ref(database), "dump", manner(folder, identity=pg.server.settings["identity"]))
    pg.carry_out(task._replace(**more))
    return shelf(folder)[-1]

# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of MySQL and MariaDB as their tests use them: a database that has everything, and what it is. No test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Backup, Encryption, Manner
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import backups
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref, Tick
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Dump, Restore, Task, Verify
from tests.fleet import Server

from .my import Used, use

# The database's character set is changed afterwards: routines keep that of their birth, and a dump says ALTER DATABASE.
CONTENT = r"""
CREATE TABLE plain (
  id int AUTO_INCREMENT PRIMARY KEY, name varchar(50), note text, b varbinary(20), bl blob, eight bit(8),
  d decimal(20,6), dt datetime(6), ts timestamp NULL, day date, g geometry, j json, f double, fl float, y year,
  e enum('a', 'b,c'), s set('x', 'y'), t time, big bigint unsigned, UNIQUE (name), FULLTEXT (note)
) DEFAULT CHARSET=utf8mb4 AUTO_INCREMENT=1000 COMMENT='it''s a "comment"\nnext `line`';
INSERT INTO plain (name, note, b, bl, eight, d, dt, ts, day, g, j, f, fl, y, e, s, t, big) VALUES
  ('a', 'x''y\\z\n(1),(2)\r\n\t\Z', x'00ff270a5c', x'deadbeef00', b'10101010', -1.5, '2020-01-01 00:00:00.123456',
   '2020-06-01 12:00:00', '2020-01-01', ST_GeomFromText('POLYGON((0 0,4 0,4 4,0 0),(1 1,2 1,2 2,1 1))'),
   '{"a": [1, "),("]}', 0.1, 0.1, 2026, 'b,c', 'x,y', '-12:00:00', 18446744073709551615),
  (CONVERT(x'F09F9880292C28' USING utf8mb4), NULL, NULL, '', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
   NULL, NULL, NULL, NULL, NULL),
  ('),(''', CONCAT('\0', REPEAT('),(1,''', 50)), '', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1e300, 1.5, NULL,
   'a', '', '838:59:59', 0),
  ('end\\', ';\nUNLOCK TABLES;\n', x'5c', NULL, b'0', 0, NULL, NULL, NULL, NULL, NULL, -1e-300, -0.25, NULL, NULL, NULL,
   NULL, 1);
CREATE TABLE empty_one (id int PRIMARY KEY AUTO_INCREMENT, at datetime) AUTO_INCREMENT=77;
CREATE TABLE keyless (a int, b varchar(10)) DEFAULT CHARSET=latin1 COLLATE=latin1_german1_ci;
INSERT INTO keyless VALUES (1, x'E4'), (1, x'E4'), (NULL, NULL);
CREATE TABLE parted (id int, at date, KEY (at)) PARTITION BY RANGE (TO_DAYS(at)) (
  PARTITION p0 VALUES LESS THAN (738000), PARTITION pm VALUES LESS THAN MAXVALUE);
INSERT INTO parted VALUES (1, '2020-01-01'), (2, '2025-01-01'), (3, NULL);
CREATE TABLE made (a int, v int GENERATED ALWAYS AS (a + 1) VIRTUAL, st int GENERATED ALWAYS AS (a * 2) STORED,
  KEY (v));
INSERT INTO made (a) VALUES (1), (2), (3);
CREATE TABLE old_dates (d date, dt datetime);
SET sql_mode = '';
INSERT INTO old_dates VALUES ('0000-00-00', '0000-00-00 00:00:00'), ('2020-00-00', '2020-01-01');
SET sql_mode = DEFAULT;
CREATE TABLE `we``ird; DROP
'"--` (`co``l;` int, `a b` varchar(3) DEFAULT 'x''');
INSERT INTO `we``ird; DROP
'"--` VALUES (1, 'y'), (2, ''), (3, NULL);
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int PRIMARY KEY, p int, CHECK (p > 0), FOREIGN KEY (p) REFERENCES parent (id) ON DELETE CASCADE);
INSERT INTO parent VALUES (1), (2);
INSERT INTO child VALUES (1, 1), (2, 2);
CREATE TABLE aside (id int, note varchar(20)) ENGINE=MyISAM;
INSERT INTO aside VALUES (1, 'torn?');
CREATE VIEW a_view AS SELECT c.id, p.name FROM plain p JOIN child c ON c.id <> p.id;
CREATE VIEW b_view AS SELECT id FROM a_view WHERE name <> 'x';
CREATE VIEW z_last AS SELECT id, p FROM child;
CREATE VIEW e_first AS SELECT id, p FROM z_last WHERE id > 0 WITH LOCAL CHECK OPTION;
CREATE VIEW c_before AS SELECT id FROM e_first WHERE p > 0 AND 'it''s ä' <> '' WITH CASCADED CHECK OPTION;
CREATE VIEW d_above AS SELECT id FROM c_before;
DELIMITER //
CREATE TRIGGER tr BEFORE INSERT ON made FOR EACH ROW BEGIN SET NEW.a = NEW.a + 100; END//
CREATE TRIGGER tr2 AFTER DELETE ON parent FOR EACH ROW INSERT INTO keyless VALUES (OLD.id, 'gone')//
CREATE FUNCTION fn(x int) RETURNS int DETERMINISTIC COMMENT 'a; comment' BEGIN
-- a comment
/* INSERT INTO `plain` VALUES
(1),
*/
RETURN x + 1; END//
CREATE PROCEDURE pr() SQL SECURITY INVOKER BEGIN SELECT 'x
UNLOCK TABLES;
y'; END//
CREATE EVENT ev ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01' ON COMPLETION PRESERVE ENABLE COMMENT 'c; c'
  DO INSERT INTO empty_one (id) VALUES (1)//
CREATE EVENT sleeping ON SCHEDULE AT '2037-01-01' ON COMPLETION NOT PRESERVE DISABLE DO DO 0//
DELIMITER ;
"""
MARIADB = """
CREATE SEQUENCE counter START 5 INCREMENT 3;
SELECT NEXTVAL(counter), NEXTVAL(counter);
CREATE TABLE versioned (a int) WITH SYSTEM VERSIONING;
INSERT INTO versioned VALUES (1), (2);
UPDATE versioned SET a = 9 WHERE a = 1;
DELETE FROM versioned WHERE a = 2;
CREATE TABLE uu (u uuid, i inet6);
INSERT INTO uu VALUES ('123e4567-e89b-12d3-a456-426655440000', '::1');
"""
ROWS = {
    "plain": 4, "empty_one": 0, "keyless": 3, "parted": 3, "made": 3, "old_dates": 2, "we`ird; DROP\n'\"--": 3,
    "parent": 2, "child": 2, "aside": 1,
}  # fmt: skip


def furnish(server: Server, name: str) -> None:
    """Fills a database with one of everything."""
    quoted = "`" + name.replace("`", "``") + "`"
    server.sql(f"ALTER DATABASE {quoted} CHARACTER SET latin1")
    server.script(CONTENT + (MARIADB if server.engine == "mariadb" else ""), database=name)
    server.sql(f"ALTER DATABASE {quoted} CHARACTER SET utf8mb4")


def rows(server: Server) -> dict[str, int]:
    """What furnish() has made, history included."""
    return {**ROWS, **({"versioned": 3, "uu": 1} if server.engine == "mariadb" else {})}


def describe(server: Server, name: str) -> dict[tuple[str, str], list[list[str]]]:
    """Everything that a database is, in words without its name."""
    found: dict[tuple[str, str], list[list[str]]] = {}
    quoted = "`" + name.replace("`", "``") + "`"
    text = name.replace("\\", "\\\\").replace("'", "\\'")

    def show(kind: str, names: list[list[str]]) -> None:
        for (each,) in names:
            words = server.sql(f"SHOW CREATE {kind} {quoted}.`{each.replace('`', '``')}`")
            if kind == "TRIGGER":
                del words[0][6]  # when it was made
            # MySQL says of a column whether its character set was given: a dump gives it, with the collation.
            words[0] = [cell.replace("CHARACTER SET latin1 COLLATE", "COLLATE") for cell in words[0]]
            found[kind, each] = [[cell.replace(quoted, "DB").replace(name, "DB") for cell in words[0]]]

    schema = "information_schema"
    kinds = server.sql(f"SELECT TABLE_NAME, TABLE_TYPE FROM {schema}.TABLES WHERE TABLE_SCHEMA = '{text}' ORDER BY 1")
    tables = [[table] for table, kind in kinds if kind in ("BASE TABLE", "SYSTEM VERSIONED")]
    show("TABLE", tables)
    show("VIEW", [[table] for table, kind in kinds if kind == "VIEW"])
    show("SEQUENCE", [[table] for table, kind in kinds if kind == "SEQUENCE"])
    show("TRIGGER", server.sql(f"SELECT TRIGGER_NAME FROM {schema}.TRIGGERS WHERE TRIGGER_SCHEMA = '{text}'"))
    show("EVENT", server.sql(f"SELECT EVENT_NAME FROM {schema}.EVENTS WHERE EVENT_SCHEMA = '{text}'"))
    for kind in ("FUNCTION", "PROCEDURE"):
        where = f"ROUTINE_SCHEMA = '{text}' AND ROUTINE_TYPE = '{kind}'"
        show(kind, server.sql(f"SELECT ROUTINE_NAME FROM {schema}.ROUTINES WHERE {where}"))
    for (table,) in tables:
        where = f"{quoted}.`{table.replace('`', '``')}`"
        found["sum", table] = [[server.sql(f"CHECKSUM TABLE {where} EXTENDED")[0][1]]]
        found["count", table] = server.sql(f"SELECT COUNT(*) FROM {where}")
    found["database", ""] = server.sql(
        f"SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM {schema}.SCHEMATA WHERE SCHEMA_NAME = '{text}'"
    )
    return found


class Shelter:
    """An engine and a backup folder of its own."""

    def __init__(self, server: Server, folder: Path, **more: Any) -> None:
        params = {
            key: more.pop(key) for key in list(more) if key.startswith(("login_", "ssl_", "ca_", "check_", "session_"))
        }
        self.server = server
        self.used: Used = use(server, **params)
        self.folder = folder
        encryption: Encryption | None = more.pop("encryption", None)
        identity = str(self.used.server.settings["identity"])
        self.manner = Manner(str(folder), encryption=encryption, identity=identity, **more)

    def carry_out(self, task: Task) -> list[Tick]:
        engine = self.used.engine
        with engine.session(engine.home(task)) as session:
            return list(engine.carry_out(session, task, self.used.server, None))

    def dump(self, name: str, method: str = "dump", **more: Any) -> Backup:
        self.carry_out(Dump(Ref(name), method, self.manner, **more))
        return self.newest(name)

    def verify(self, name: str, level: str, **more: Any) -> Backup:
        self.carry_out(Verify(Ref(name), None, self.manner, level, **more))
        return self.newest(name)

    def restore(self, backup: Backup, name: str, **more: Any) -> None:
        self.carry_out(Restore(Ref(name), backup, **more))

    def newest(self, name: str) -> Backup:
        found = backups.newest(str(self.folder), server=self.manner.identity, database=name)
        assert found is not None, "there is no backup"
        return found

    def files(self) -> list[str]:
        """All that lies in the folder."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())

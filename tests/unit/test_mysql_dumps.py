# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps of MySQL and MariaDB as text: rows are counted exactly, however they arrive, and no part counts as a whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql.mending import Mended
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql.scanning import (
    END_OF_ROWS,
    SEMICOLONS,
    Content,
    Scanner,
    _end_of_rows,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Refused

ESCAPES = {"\0": "\\0", "\n": "\\n", "\r": "\\r", "\\": "\\\\", "'": "\\'", '"': '\\"', "\x1a": "\\Z"}
TEXT = st.text(st.sampled_from("),(;\n\r'\"\\\0\x1a1aLü😀` -"), max_size=12)
ROW = st.tuples(st.integers(-9, 9), TEXT, st.none() | TEXT)
NAMES = st.sampled_from(["t", "we`ird", "with\nbreak", "LOCK TABLES `x` WRITE;"])
TABLES = st.dictionaries(NAMES, st.lists(st.lists(ROW, min_size=1, max_size=4), max_size=3), max_size=3)
Rows = dict[str, list[list[tuple[int, str, str | None]]]]
END = "-- Dump completed on 2026-11-22  6:48:12\n"


def value(text: str | None) -> str:
    return "NULL" if text is None else "'" + "".join(ESCAPES.get(sign, sign) for sign in text) + "'"


def written(tables: Rows, style: str) -> bytes:
    """As mysqldump writes it (`line`), as mariadb-dump does (`rows`), and as that does with history."""
    between, after = {"line": (",", " "), "rows": (",\n", "\n"), "history": (",\n", " ")}[style]
    columns = " (`a`, row_start, row_end)" if style == "history" else ""
    out = ["-- dump\n\n/*!40101 SET NAMES utf8mb4 */;\n"]
    for name, inserts in tables.items():
        quoted = "`" + name.replace("`", "``") + "`"
        out.append(f"CREATE TABLE {quoted} (\n  `a` int COMMENT 'UNLOCK TABLES;'\n);\nLOCK TABLES {quoted} WRITE;\n")
        for rows in inserts:
            texts = [f"({number},{value(one)},{value(two)})" for number, one, two in rows]
            out.append(f"INSERT INTO {quoted}{columns} VALUES{after}{between.join(texts)};\n")
        out.append("UNLOCK TABLES;\n")
    body = "CREATE PROCEDURE p() BEGIN\nINSERT INTO `t` VALUES\n(1);\nLOCK TABLES `t` WRITE;\nEND ;;\n"
    return "".join([*out, "DELIMITER ;;\n", body, "DELIMITER ;\n\n", END]).encode()


def scanned(text: bytes, size: int) -> Content:
    scanner = Scanner()
    for at in range(0, len(text), size):
        scanner.feed(text[at : at + size])
    scanner.end()
    return scanner.content


@given(tables=TABLES, style=st.sampled_from(["line", "rows", "history"]), size=st.integers(1, 40))
def test_rows_are_counted_however_they_arrive(tables: Rows, style: str, size: int) -> None:
    text = written(tables, style)
    found = scanned(text, size)
    assert found.rows == {name: sum(len(rows) for rows in inserts) for name, inserts in tables.items()}
    assert found == scanned(text, len(text))


@given(tables=TABLES, style=st.sampled_from(["line", "rows"]), at=st.floats(0, 1, exclude_max=True))
def test_no_part_of_a_dump_is_a_dump(tables: Rows, style: str, at: float) -> None:
    """Cut anywhere before the trailer, at the end of a statement, too."""
    text = written(tables, style)
    for cut in (int((len(text) - len(END)) * at), text.rfind(b";\n", 0, int(len(text) * at)) + 2):
        with pytest.raises(Refused, match="not whole"):
            scanned(text[:cut], 1 << 20)


def test_a_row_that_is_gone_or_changed_is_told() -> None:
    tables: Rows = {"t": [[(1, "a", None), (2, "b", None)], [(3, "c", "d")]]}
    for style in ("line", "rows"):
        text = written(tables, style)
        whole = scanned(text, 7)
        changed = scanned(text.replace(b"'b'", b"'x'"), 7)
        assert changed.rows == whole.rows and changed.sums != whole.sums
        lost = scanned(
            text.replace(b"\n(2,'b',NULL)", b"").replace(b"NULL),;", b"NULL);").replace(b",(2,'b',NULL)", b""), 7
        )
        assert lost.rows["t"] == 2


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b"(2,'b',NULL);\n", b"(2,'b\n", "middle|damaged"),
        (b"UNLOCK TABLES;\nDELIMITER", b"DELIMITER", "no end"),
        (b"INSERT INTO `t`", b"INSERT INTO `u`", "another table"),
        (b"DELIMITER ;\n", b"", "routine"),
        (b"(1,'a',NULL),\n", b"(1,'a'\n", "damaged"),
    ],
)
def test_what_is_damaged_is_refused(old: bytes, new: bytes, why: str) -> None:
    text = written({"t": [[(1, "a", None), (2, "b", None)]]}, "rows")
    assert old in text
    with pytest.raises(Refused, match=why):
        scanned(text.replace(old, new), 11)


@given(
    text=st.lists(st.sampled_from([b");\n", b";", b")", b"\n", b"a", b";" * SEMICOLONS])).map(b"".join),
    at=st.integers(0, 20),
)
def test_the_end_of_rows_is_where_it_is(text: bytes, at: int) -> None:
    assert _end_of_rows(text, at) == text.find(END_OF_ROWS, at)


def test_lines_that_are_compared_need_not_be_looked_at_twice() -> None:
    text = written({"t": [[(1, "a", None), (2, "b", None)]], "u": [[(1, "a", None)]]}, "rows")
    damaged = text.replace(b"(1,'a',NULL),\n", b"(1,'a'\n")
    found = []
    for each in (text, damaged):
        scanner = Scanner(compared={"t"})
        scanner.feed(each)
        scanner.end()
        found.append(scanner.content)
    whole, other = found
    assert whole == scanned(text, 7) and other.rows == whole.rows
    assert other.sums["t"] != whole.sums["t"] and other.sums["u"] == whole.sums["u"]
    for compared in (frozenset[str](), frozenset({"u"})):
        with pytest.raises(Refused, match="damaged"):
            Scanner(compared=compared).feed(damaged)


def reader(text: bytes, size: int) -> Callable[[int], bytes]:
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    return lambda _size: pieces.pop(0) if pieces else b""


EVENT = (
    "/*!50106 CREATE*/ /*!50117 DEFINER=`a`@`%`*/ /*!50106 EVENT `e ON COMPLETION PRESERVE ENABLE` ON SCHEDULE"
    " EVERY 1 DAY STARTS '2030-01-01 00:00:00' ON COMPLETION NOT PRESERVE ENABLE COMMENT 'ENABLE' DO DO 0 */ ;;\n"
)


@given(size=st.integers(1, 300))
def test_a_dump_is_mended_on_its_way(size: int) -> None:
    text = "INSERT INTO `t` VALUES\n('ALTER DATABASE `old` CHARACTER SET x;');\n" + EVENT
    text += (
        "ALTER DATABASE `old` CHARACTER SET latin1 COLLATE latin1_bin ;\nALTER DATABASE `older` CHARACTER SET a ;\nend"
    )
    asleep: set[bytes] = set()
    mended = Mended(reader(text.encode(), size), old="old", new="ne`w", asleep=asleep)
    found = b"".join(iter(lambda: mended.read(1 << 20), b"")).decode()
    wanted = text.replace("NOT PRESERVE ENABLE", "NOT PRESERVE DISABLE")
    assert found == wanted.replace("\nALTER DATABASE `old` C", "\nALTER DATABASE `ne``w` C")
    assert asleep == {b"`e ON COMPLETION PRESERVE ENABLE`"}


def test_an_event_that_cannot_be_put_to_sleep_is_refused() -> None:
    mended = Mended(
        reader(EVENT.replace(" ENABLE COMMENT", " ODD COMMENT").encode(), 999), old="a", new="b", asleep=set()
    )
    with pytest.raises(Refused, match="sleep"):
        mended.read(1 << 20)


VIEWS = """
-- Final view structure for view `v``w`
/*!50001 DROP VIEW IF EXISTS `v``w`*/;
/*!50001 CREATE ALGORITHM=UNDEFINED */
/*!50013 DEFINER=`me`@`%` SQL SECURITY DEFINER */
/*!50001 VIEW `v``w` AS select `o``ld`.`f`(`x`.`a`) AS `a`,'from `o``ld`.`t`' from (`o``ld`.`t` `x` join `o`.`u`)*/;
/*!50001 VIEW `kept` AS select `o``ld`.`a` AS `a` from `t` `o``ld`*/;
CREATE TABLE `t` (
  `id` int(11) DEFAULT nextval(`o``ld`.`s`),
) ENGINE=InnoDB AUTO_INCREMENT=7;
"""


@given(size=st.integers(1, 400))
def test_a_copy_does_not_reach_back_into_its_source(size: int) -> None:
    mended = Mended(reader(VIEWS.encode(), size), old="o`ld", new="new", own=True)
    found = b"".join(iter(lambda: mended.read(1 << 20), b"")).decode()
    wanted = VIEWS.replace("select `o``ld`.`f`", "select `new`.`f`").replace("(`o``ld`.`t` `x`", "(`new`.`t` `x`")
    wanted = wanted.replace("nextval(`o``ld`.", "nextval(`new`.").replace("DEFINER=`me`@`%`", "DEFINER=CURRENT_USER")
    assert found == wanted


@given(size=st.integers(1, 400))
def test_views_that_cannot_be_there_are_left_out(size: int) -> None:
    mended = Mended(reader(VIEWS.encode(), size), old="o`ld", new="o`ld", without=["v`w"])
    found = b"".join(iter(lambda: mended.read(1 << 20), b"")).decode()
    assert found == VIEWS[: VIEWS.index("/*!50001 DROP")] + VIEWS[VIEWS.index("/*!50001 VIEW `kept`") :]


@given(size=st.integers(1, 400))
def test_what_is_restored_is_neither_locked_nor_made_zero(size: int) -> None:
    head = "/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;\n"
    rows = "/*!40000 ALTER TABLE `a``b` DISABLE KEYS */;\nINSERT INTO `a``b` VALUES\n(1);\nUNLOCK TABLES;\n"
    body = "DELIMITER ;;\nCREATE PROCEDURE p() SELECT '\nLOCK TABLES `a` WRITE;\n' ;;\nDELIMITER ;\n"
    mended = Mended(reader(f"{head}LOCK TABLES `a``b` WRITE;\n{rows}{body}{head}".encode(), size), old="a", new="a")
    found = b"".join(iter(lambda: mended.read(1 << 20), b"")).decode()
    assert found == head.replace("ZERO'", "ZERO,ALLOW_INVALID_DATES'") + rows + body + head


CHECKED = """-- Final view structure for view `a`
/*!50001 DROP VIEW IF EXISTS `a`*/;
/*!50001 SET character_set_client      = latin1 */;
/*!50001 CREATE ALGORITHM=MERGE */
/*!50013 DEFINER=`me`@`%` SQL SECURITY DEFINER */
/*!50001 VIEW `a` AS select `b`.`x` AS `x` from `b` where `b`.`x` > 1 */
/*!50002 WITH CASCADED CHECK OPTION */;
/*!50001 SET character_set_client      = @saved_cs_client */;

-- Final view structure for view `b`
/*!50001 DROP VIEW IF EXISTS `b`*/;
/*!50001 CREATE ALGORITHM=UNDEFINED */
/*!50013 DEFINER=`me`@`%` SQL SECURITY DEFINER */
/*!50001 VIEW `b` AS select `t`.`x` AS `x` from `t` */
/*!50002 WITH LOCAL CHECK OPTION */;
-- Dump completed
"""


@given(size=st.integers(1, 900))
def test_a_checked_view_comes_after_those_that_it_is_made_of(size: int) -> None:
    """At its place it has no option: what it is made of may be nothing yet that could be updated."""
    mended = Mended(reader(CHECKED.encode(), size), old="o", new="o", own=True)
    found = b"".join(iter(lambda: mended.read(1 << 20), b"")).decode()
    text = CHECKED.replace("DEFINER=`me`@`%`", "DEFINER=CURRENT_USER")
    first, second = text.index("/*!50001 DROP VIEW IF EXISTS `a`"), text.index("-- Final view structure for view `b`")
    before = text.replace(" */\n/*!50002 WITH CASCADED CHECK OPTION */;", " */;")
    before = before.replace(" */\n/*!50002 WITH LOCAL CHECK OPTION */;", " */;")
    assert found.startswith(before)
    last = (
        text[text.index("/*!50001 DROP VIEW IF EXISTS `b`") : text.index("-- Dump")]
        + text[first:second].rstrip()
        + "\n"
    )
    assert found[len(before) :] == "/*!40101 SET SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */;\n" + last


def test_definitions_do_not_depend_on_where_they_are() -> None:
    def of(text: str, database: str) -> Content:
        scanner = Scanner(database, trailer=False)
        scanner.feed(text.encode())
        scanner.end()
        return scanner.content

    text = "-- Table structure for table `t`\n" + VIEWS
    one, two = of(text, "o`ld"), of(text.replace("`o``ld`.", "`new`."), "new")
    # What has an alias of the database's name is left as it is.
    assert one.foreign == ["v`w"] and one.definitions.keys() == two.definitions.keys()
    changed = of(text.replace("int(11)", "bigint"), "o`ld")
    assert changed.definitions != one.definitions


def test_a_row_of_any_length_is_no_line_that_has_to_fit() -> None:
    scanner, piece = Scanner(trailer=False), b"text" * (1 << 19)
    scanner.feed(b"LOCK TABLES `t` WRITE;\nINSERT INTO `t` VALUES (1,'")
    for _each in range(9):
        scanner.feed(piece)
    scanner.feed(b"');\nUNLOCK TABLES;\n")
    scanner.end()
    assert scanner.content.rows == {"t": 1} and scanner.content.longest > 18 << 20

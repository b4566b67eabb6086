# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sizes of relations by the files that they are made of, as SQL. What they are sizes of stands in catalog.py.

A size function opens its relation: each session builds a description of it first, which costs several times what the
file system takes to answer. Superusers may ask it, and who was granted EXECUTE on pg_stat_file(text, boolean).
"""

from __future__ import annotations

# The folder of the database's own files, where the login may look there; a relation's first file holds up to 1 GB, but
# for servers that were built otherwise.
FOLDER = """CASE WHEN pg_catalog.has_function_privilege('pg_catalog.pg_stat_file(text, boolean)', 'EXECUTE')
                  AND pg_catalog.current_setting('segment_size') = '1GB'
            THEN pg_catalog.regexp_replace(
                pg_catalog.pg_relation_filepath('pg_catalog.pg_class'::pg_catalog.regclass), '[0-9]+$', '') END"""
# What an unlogged relation begins with after a crash is of a table an empty file, of a b-tree (403) one page.
# `main` is what pg_relation_size says, `whole` is of all forks. NULL: not known by one file, ask the function.
FILES = """LATERAL (
    SELECT f.main,
           f.main + coalesce((pg_catalog.pg_stat_file(f.path || '_fsm', true)).size, 0)
                  + CASE WHEN {of}.relkind = 'i' THEN 0
                         ELSE coalesce((pg_catalog.pg_stat_file(f.path || '_vm', true)).size, 0) END
                  + CASE WHEN {of}.relpersistence <> 'u' OR {of}.relkind <> 'i' THEN 0
                         WHEN {of}.relam = 403 THEN %(block)s
                         ELSE coalesce((pg_catalog.pg_stat_file(f.path || '_init', true)).size, 0) END AS whole
      FROM (SELECT p.path, CASE WHEN p.size < 1073741824 THEN p.size END AS main
              FROM (SELECT n.path, (pg_catalog.pg_stat_file(n.path, true)).size
                      FROM (SELECT CASE WHEN {of}.relfilenode <> 0 AND {of}.reltablespace = 0
                                             AND {of}.relpersistence <> 't'
                                        THEN %(folder)s || {of}.relfilenode
                                        ELSE pg_catalog.pg_relation_filepath({of}.oid) END AS path
                            OFFSET 0) n
                    OFFSET 0) p
            OFFSET 0) f
     OFFSET 0)"""
NONE = "LATERAL (SELECT NULL::pg_catalog.int8 AS main, NULL::pg_catalog.int8 AS whole)"


def files(of: str, folder: str | None) -> str:
    """What can be joined to the row `of` of pg_class: its sizes, or nothing where the login may not ask for files."""
    return FILES.format(of=of) if folder else NONE

# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A library for PostgreSQL that provides security labels, and takes any. Built as tests need it. No test lives here.

Debian's headers of the server come with a whole compiler, so what little of them is needed stands here. Source:
fmgr.h (Pg_magic_struct) and commands/seclabel.h of versions 15 to 18.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from .conftest import missing

PROVIDER = "dbfleet demo"
SOURCE = r"""
typedef struct { int version, funcmaxargs, indexmaxkeys, namedatalen, float8byval; char extra[32]; } Abi;
#if MAJOR >= 18
typedef struct { int len; Abi abi; const char *name, *version; } Magic;
#else
typedef struct { int len; Abi abi; } Magic;
#endif
const Magic *Pg_magic_func(void);
const Magic *Pg_magic_func(void)
{
    static const Magic magic = {sizeof(Magic), {MAJOR * 100, 100, 32, 64, 1, "PostgreSQL"}};
    return &magic;
}
extern void register_label_provider(const char *name, void (*check)(const void *object, const char *label));
static void take_any(const void *object, const char *label) { (void) object; (void) label; }
void _PG_init(void);
void _PG_init(void) { register_label_provider("dbfleet demo", take_any); }
"""


def built(folder: Path, major: str) -> Path:
    """The library, where every account may read it."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        missing("a compiler of C, for a provider of security labels")
    library, source = folder / f"labels_{major}.so", folder / f"labels_{major}.c"
    source.write_text(SOURCE)
    words = [compiler, "-shared", "-fPIC", f"-DMAJOR={major}", "-o", str(library), str(source)]
    subprocess.run(words, check=True, capture_output=True)
    library.chmod(0o755)
    return library

# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills runs that copy into a bucket, fetch from it, or rotate there: what is a backup then, and what stays.

Nobody else's objects and uploads are ever touched: another server of the same name uses the same prefix.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Backup, Bucket, Sheltered
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import (
    backups,
    copies,
    reader,
    s3,
    s3_client,
    s3_reading,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.backup_manifest import (
    MANIFEST,
    fields_of,
    parse,
    write_manifest,
)
from tests.fleet import Fleet
from tests.fleet.bucket import Service, open_uploads, stored
from tests.integration.backups import laid, now

from .backup_gates import ANY, Gates, arm
from .backup_places import Ground, ground
from .offspring import Offspring
from .process import Gate, Run, Stop, put
from .table import Broken, Cell, How

ENGINE = "bucket"
COPY, FETCH, ROTATE = "copy to bucket", "fetch", "rotate bucket"
KINDS = (COPY, FETCH, ROTATE)
SENT = ("noted", "upload begun", "part there", "parts there", "file there")
FETCHED = ("fetching", "file here")
REMOVED = ("deleted there",)
PHASES = {
    COPY: (*SENT, "copy there", "copied", ANY),
    FETCH: (*FETCHED, "copy there", "complete", ANY),
    ROTATE: (*REMOVED, "copy gone", "marked", "deleted", ANY),
}
PART = 1 << 18  # bytes
NAME, PREFIX = "chaos", "fleet"
TO = f"s3://{NAME}/{PREFIX}"
STRANGER = "20200101T000000Z-abcdef.sqlite3"
MADE, KEPT = 4, 2
DAYS = timedelta(days=2)


def armed(gate: Gate, mutant: str) -> None:
    """Only ever in a child."""
    arm(gate, mutant)
    gates, asked = Gates(gate), s3_client.client
    amend = backups.amend

    def amended(backup: Any, **more: Any) -> Any:
        result = amend(backup, **more)
        if more.get("copying"):
            gates.passes("noted")
        return result

    put(s3, PART=PART, client=lambda access: _Client(asked(access), gates.passes))
    put(backups, amend=amended)
    gates.after(s3_reading.Reading, "bring", "file here")
    if mutant == NOT_NOTED:
        put(backups, amend=lambda backup, **more: backup if more.get("copying") else amend(backup, **more))


NOT_NOTED = "copies that are not noted"
MUTANTS = (NOT_NOTED,)


class _Client:
    """boto3's, with the gate between what it asks for."""

    def __init__(self, inner: Any, passes: Callable[[str], bool]) -> None:
        self._inner, self._passes = inner, passes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def create_multipart_upload(self, **words: Any) -> Any:
        return self._after("upload begun", self._inner.create_multipart_upload(**words))

    def upload_part(self, **words: Any) -> Any:
        return self._after("part there", self._inner.upload_part(**words))

    def complete_multipart_upload(self, **words: Any) -> Any:
        self._passes("parts there")
        return self._after("file there", self._inner.complete_multipart_upload(**words))

    def put_object(self, **words: Any) -> Any:
        return self._after("copy there", self._inner.put_object(**words))

    def get_object(self, **words: Any) -> Any:
        found = self._inner.get_object(**words)
        return found if words["Key"].endswith(MANIFEST) else self._after("fetching", found)

    def delete_object(self, **words: Any) -> Any:
        return self._after("deleted there", self._inner.delete_object(**words))

    def _after(self, phase: str, result: Any) -> Any:
        self._passes(phase)
        return result


class State(NamedTuple):
    """What was there before: a folder, and objects."""

    folder: Path
    objects: Mapping[str, bytes]


class Buckets:
    """A database in a file, a folder, a bucket, and the tests on them."""

    def __init__(self, fleet: Fleet, how: How) -> None:
        self._how = how
        self._service = Service(least_part=1)
        self._client = self._service.begin()
        self._client.create_bucket(Bucket=NAME)
        self._ground: Ground = ground(fleet, "sqlite")
        self._work = fleet.folder("work")
        self._case = self._work / "case"
        self._folder, self._traces = self._case / "backups", self._case / "traces"
        self._lasted: dict[str, float] = {}
        self._states: dict[str, State] = {}
        self._made: list[Backup] = []
        self._offspring = Offspring()

    @property
    def version(self) -> str:
        return self._ground.version

    def cells(self) -> Iterator[Cell]:
        for kind, phases in PHASES.items():
            for phase in phases:
                yield Cell(ENGINE, kind, phase, "killed")

    def recover(self) -> None:
        self._offspring.end()
        self._ground.recover()

    def hit(self, cell: Cell, number: int) -> bool:
        number += self._how.seed
        self._lay(cell.kind)
        hit = self._first(cell, number)
        self._whole("after the hit")
        {COPY: self._copied_again, FETCH: self._fetched_again, ROTATE: self._rotated_again}[cell.kind](number)
        self._whole("after the next run")
        self._clean()
        return hit

    # ---- what is there before

    def _lay(self, kind: str) -> None:
        if kind not in self._states:
            self._begin({})
            if kind == ROTATE:
                self._several()
            else:
                self._run(COPY, "template").result()
                (made,) = self._look()
                write_manifest(made._replace(began=made.began - DAYS, ended=made.ended - DAYS))
            kept = self._work / f"template {kind}"
            shutil.copytree(self._folder, kept)
            self._states[kind] = State(kept, {key: self._body(key) for key in stored(self._client, NAME)})
        state = self._states[kind]
        self._begin(state.objects)
        if kind != FETCH:
            shutil.copytree(state.folder, self._folder, dirs_exist_ok=True)
        folder = next(key for key in state.objects).rpartition("/")[0]
        self._stranger = f"{folder}/{STRANGER}"
        self._client.put_object(Bucket=NAME, Key=self._stranger, Body=b"not ours")
        self._client.create_multipart_upload(Bucket=NAME, Key=self._stranger)
        self._made = self._look()

    def _begin(self, objects: Mapping[str, bytes]) -> None:
        shutil.rmtree(self._case, ignore_errors=True)
        for path in (self._case, self._folder, self._traces):
            path.mkdir(mode=0o700)
        for upload in self._client.list_multipart_uploads(Bucket=NAME).get("Uploads", ()):
            self._client.abort_multipart_upload(Bucket=NAME, Key=upload["Key"], UploadId=upload["UploadId"])
        for key in stored(self._client, NAME):
            self._client.delete_object(Bucket=NAME, Key=key)
        for key, body in objects.items():
            self._client.put_object(Bucket=NAME, Key=key, Body=body)

    def _several(self) -> None:
        access = Bucket(**self._service.options())
        for number in range(MADE):
            backup = laid(self._folder, now() - timedelta(days=MADE - number), engine="sqlite")
            list(copies.copy(backup, TO, bucket=access))

    def _body(self, key: str) -> bytes:
        found: bytes = self._client.get_object(Bucket=NAME, Key=key)["Body"].read()
        return found

    def _look(self) -> list[Backup]:
        shelf = backups.look(Sheltered(str(self._folder)))
        if shelf.why_not or shelf.broken:
            raise Broken(f"not all in the folder are whole: {shelf.why_not} {[(b.name, b.why) for b in shelf.broken]}")
        return list(shelf.backups)

    # ---- runs

    def _run(self, kind: str, output: str, stop: Stop | None = None, *, check: bool = False, **more: Any) -> Run:
        common = {"backup_dir": str(self._folder), "journal": "none", "s3": self._service.options()}
        module, told = {
            COPY: ("db_backup", {**self._ground.backup_options(), "copy_to": TO}),
            FETCH: ("db_restore", {**self._ground.restore_options(), "copy_from": TO}),
            ROTATE: ("db_backup_rotate", {"engine": "sqlite", "copy_to": TO, "keep_last": KEPT, "min_verified": 0}),
        }[kind]
        mutant = self._how.mutant if stop else ""
        return Run(
            module,
            {**common, **told, **more},
            self._case / output,
            arm=lambda gate: armed(gate, mutant),
            stop=stop,
            check=check,
            traces=self._traces,
        )

    def _first(self, cell: Cell, number: int) -> bool:
        passages = {"part there": 1 + number % 4, "deleted there": 1 + number % 4, "deleted": 1 + number % 2}
        run = self._run(cell.kind, "first", Stop(cell.phase, passages.get(cell.phase, 1)))
        try:
            if cell.phase == ANY:
                dice = random.Random(f"{number} {cell}")
                hit = not run.ends(dice.uniform(0.05, self._lasted.get(cell.kind, 1.0)))
            else:
                hit = run.stops()
            if hit:
                run.kill()
            run.end()
        finally:
            run.dispose()
        return hit

    def _next(self, kind: str, **more: Any) -> None:
        began = time.monotonic()
        self._run(kind, "next", **more).result()
        self._lasted[kind] = max(0.2, time.monotonic() - began)

    def _copied_again(self, number: int) -> None:
        if number % 4 == 1:
            self._run(ROTATE, "rotated", keep_last=1).result()
            self._made = []  # one of them is kept, and one at least
            if len(self._look()) != 1:
                raise Broken(f"rotation kept {len(self._look())} instead of 1")
        # The last one is completed, or another one is made: then nobody copies what died again.
        self._next(COPY, **({"min_interval": "0s"} if number % 2 else {}))
        newest = self._look()[-1]
        if newest.copies != (TO,) or any(each.copying for each in self._look()):
            raise Broken(f"the next run says that all went well, and {newest.id} is not copied")
        if number % 3 == 0 and self._run(COPY, "third", check=True).result()["changed"]:
            raise Broken("the run after the next one has something to do")

    def _fetched_again(self, number: int) -> None:
        if self._ground.restored() == "":
            self._ground.forget()  # it came to its end: else the next one would rightly not touch it
        self._next(FETCH)
        if self._ground.restored():
            raise Broken(f"what the next run restored is not whole: {self._ground.restored()}")
        self._ground.forget()
        if len(self._look()) != 1:
            raise Broken("what was fetched is not here")
        self._run(COPY, "backed up", min_interval="0s").result()  # a restore cleans up nothing that is not in its way

    def _rotated_again(self, number: int) -> None:
        self._next(ROTATE)
        wanted = [each.id for each in self._made[-KEPT:]]
        if [each.id for each in self._look()] != wanted or sorted(self._copies()) != wanted:
            raise Broken(f"the next run kept {len(self._look())} here and {len(self._copies())} there")
        if self._run(ROTATE, "third", check=True).result()["changed"]:
            raise Broken("the run after the next one has something to do")

    # ---- what is there

    def _copies(self) -> dict[str, Backup]:
        """What is called a backup in the bucket."""
        texts = [self._body(key) for key in stored(self._client, NAME) if key.endswith(MANIFEST)]
        found = [parse(fields_of(text), "") for text in texts]
        return {backup.id: backup for backup in found}

    def _whole(self, when: str) -> None:
        """All that is called a backup is one, here and there, and what is nobody's is still there."""
        here, there = self._look(), self._copies()
        kept = {each.id for each in self._made[-KEPT:]}
        if not kept <= {each.id for each in here} or not kept <= there.keys():
            raise Broken(f"{when} a backup or its copy is gone")
        for backup in here:
            for _more in reader.checksum(backup):
                pass
        folder = self._stranger.rpartition("/")[0]
        for backup in there.values():
            for file in backup.files:
                if hashlib.sha256(self._body(f"{folder}/{file.name}")).hexdigest() != file.sha256:
                    raise Broken(f"{when} the copy of {file.name} is not what its manifest says")
        if self._body(self._stranger) != b"not ours" or self._stranger not in open_uploads(self._client, NAME):
            raise Broken(f"{when} an object or upload is gone that is nobody's")

    def _clean(self) -> None:
        """Nothing tells any more that a run has died."""
        folder = self._stranger.rpartition("/")[0]
        named = {f"{folder}/{file.name}" for backup in self._copies().values() for file in backup.files}
        named |= {f"{folder}/{ident}{MANIFEST}" for ident in self._copies()} | {self._stranger}
        left = sorted(stored(self._client, NAME).keys() - named)
        left += [f"upload of {key}" for key in open_uploads(self._client, NAME) if key != self._stranger]
        left += [str(path) for path in self._folder.rglob("*.partial")]
        left += [*(str(path) for path in self._traces.iterdir()), *self._ground.scratch()]
        if left:
            raise Broken(f"left behind: {left}")

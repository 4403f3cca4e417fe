"""The verb about data: data show, index, check, pack and cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, final

from tyro.conf import Positional, arg

from onestage.cli.verb import Count, Folder, GivenSource, Settings, Verb


@final
@dataclass(frozen=True)
class Data(Verb):
    """show: what a source holds, and with --out ten of its samples as a picture. index: make the indexes of tar
    shards. check: decode every sample, and check every byte of shards; exit code 1 where any is bad. pack: write any
    source as tar shards; cut: write the clips of a source of videos as files. Typed again after an interruption, both
    go on.
    """

    action: Positional[Literal["show", "index", "check", "pack", "cut"]]
    """what to do"""
    source: GivenSource
    """the data: shards/{000..127}.tar, a folder, scenes or digits"""
    out: Folder = None
    """pack: the folder of the shards; cut: of the clips; show: a PNG file for ten samples"""
    look: Annotated[int, arg(metavar="N")] = 1000
    """show: samples that are looked at, spread over the source"""
    size: Count = None
    """pack, cut: bring pictures whose shorter side is longer down to so many pixels"""
    shard_mb: Annotated[float, arg(metavar="MB")] = 256.0
    """pack: size of a shard in 10^6 bytes, about"""
    workers: Count = None
    """processes; by the number of cores unless given"""

    def run(self, settings: Settings) -> int:
        match self.action:
            case "show":
                return self._show()
            case "index":
                return self._index()
            case "check":
                return self._check()
            case "pack":
                return self._pack()
            case "cut":
                return self._cut()

    def _show(self) -> int:
        from onestage import api
        from onestage.data.survey import lines

        print("\n".join(lines(api.data_show(self.source, out=self.out, look=self.look))))
        if self.out is not None:
            print(f"wrote {self.out}")
        return 0

    def _index(self) -> int:
        from onestage import api

        print("\n".join(api.data_index(self.source)))
        return 0

    def _check(self) -> int:
        from onestage import api

        samples, faults = api.data_check(self.source, workers=self.workers)
        for fault in faults:
            print(f"- {fault.key}: {fault.reason}")
        print(f"{samples} samples, {len(faults)} faults" if faults else f"{samples} samples, all of them sound")
        return 1 if faults else 0

    def _pack(self) -> int:
        from onestage import api
        from onestage.spec import UserError

        if self.out is None:
            raise UserError("data pack: --out DIR is missing, the folder of the shards")
        packed = api.data_pack(self.source, out=self.out, size=self.size, shard_mb=self.shard_mb, workers=self.workers)
        lost = f"; {packed.bad} are bad, listed in {self.out}/quarantine.jsonl" if packed.bad else ""
        print(f"{packed.samples} samples in {packed.shards} shards in {self.out}{lost}")
        return 0

    def _cut(self) -> int:
        from onestage import api
        from onestage.spec import UserError

        if self.out is None:
            raise UserError("data cut: --out DIR is missing, the folder of the clips")
        made = api.data_cut(self.source, out=self.out, size=self.size, workers=self.workers)
        lost = f"; {made.bad} are bad, listed in {self.out}/quarantine.jsonl" if made.bad else ""
        print(f"{made.clips} clips in {self.out}{lost}; they are a source: video:{self.out}")
        return 0

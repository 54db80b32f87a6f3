"""Records of what is done with a run apart from training it: looks at gradients (probes), corrupted pictures
(transfer). Each kind has a folder of its own, next to the methods' runs."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from mtl_study.experiments.runs import ENDED, STORED_AS_NUMERICS, BadRecord, Config, Record, RunConfig


class BesideConfig(Config):
    """What one such record depends on. A subclass names the folder (`place`) and the version of its code, and adds
    settings.

    base: the run.
    """

    place: ClassVar[str]
    code_version: ClassVar[int]
    base: RunConfig

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration as JSON."""
        return {"base": self.base.settings, **self.model_dump(mode="json", exclude={"base"})}

    @property
    def code_versions(self) -> dict[str, Any]:
        """The code version of every room that it passes through."""
        return {**self.base.identity["numerics"], self.place: self.code_version}

    @property
    def identity(self) -> dict[str, Any]:
        """The configuration and the code versions."""
        return {**self.settings, "numerics": self.code_versions}

    @property
    def folder(self) -> str:
        """The folder of its record in a store."""
        return f"{self.base.problem}/{self.place}"

    @property
    def title(self) -> str:
        """In words."""
        return f"{self.base.title}, {self.place}"

    @property
    def epochs_in_all(self) -> int:
        return self.base.epochs


class BesideRecord(Record):
    """A subclass adds config, and what was found. ended: as that of the run."""

    code_versions: dict[str, Any] = STORED_AS_NUMERICS
    ended: str
    seconds: float
    environment: dict[str, str]

    @property
    def finished(self) -> bool:
        """Whether the run has. Raises BadRecord if it ended in neither of the two ways."""
        if not ENDED.fullmatch(self.ended):
            raise BadRecord(f"ended = {self.ended!r}; expected 'finished' or 'diverged at epoch e, step s'")
        return self.ended == "finished"

    def serving(self, config: Any) -> Self:
        """Itself: its length is part of what it is."""
        return self

    def same_beginning(self, other: Self) -> bool:
        """Whether both are the same, seconds and environment apart."""
        apart = {"seconds", "environment"}
        return self.model_dump(exclude=apart) == other.model_dump(exclude=apart)

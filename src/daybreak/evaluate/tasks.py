"""The tasks of lm-evaluation-harness: the built-in ones, those of a folder, and any of them on a file of one's own."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, final

import datasets
from lm_eval.api.group import Group
from lm_eval.config.group import GroupConfig
from lm_eval.tasks import TaskManager

from daybreak.errors import UserError
from daybreak.evaluate.built_in_tasks import all_names, folders_of, is_built_in
from daybreak.evaluate.items import require_answerable, require_fields
from daybreak.evaluate.local_rows import read_rows
from daybreak.evaluate.quiet import quiet
from daybreak.evaluate.runnable import require_runnable
from daybreak.evaluate.task_choice import TaskChoice
from daybreak.evaluate.task_code import run_its_code
from daybreak.progress import say

_SPLIT = "local"
_SHOTS_SPLIT = "local_shots"
_SHOTS_FROM = ("train", "dev", "shots")  # what the file of examples may be called behind a task's name


@final
@dataclass(frozen=True)
class LoadedTasks:
    """Tasks of the harness, ready to be run.

    Attributes:
        tasks: the harness's objects, by name.
        groups: likewise.
        order: as asked for, each group in front of its tasks.
        notes: what is special about one of them, for the person.
    """

    tasks: Mapping[str, Any] = field(default_factory=dict)
    groups: Mapping[str, Any] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    notes: Mapping[str, str] = field(default_factory=dict)

    def __or__(self, other: "LoadedTasks") -> "LoadedTasks":
        order = dict.fromkeys((*self.order, *other.order))
        return LoadedTasks(
            {**self.tasks, **other.tasks},
            {**self.groups, **other.groups},
            tuple(order),
            {**self.notes, **other.notes},
        )


def load_tasks(choice: TaskChoice) -> LoadedTasks:
    """Find the tasks, and read their items.

    Raises:
        UserError: there is no such task, or its items are neither local nor to be fetched.
    """
    if choice.folder is not None and not choice.folder.is_dir():
        raise UserError(f"there is no folder {choice.folder} of tasks")
    index = _Index.of(choice)
    local = {name: file for name, file in choice.local.items() if ":" not in name}
    shots = _files_of_shots(choice.local)
    asked = choice.names or index.all_of_folder()
    names = [each for name in asked for each in ([name] if name in local else index.without_tags(name))]
    for name in (*local, *shots):
        if name not in names:
            raise UserError(f"--local names {name}, which is not among the tasks asked for ({', '.join(names)})")
    loaded = LoadedTasks()
    for name in names:
        for leaf in index.leaves(name):
            require_runnable(leaf, index.config(leaf))
            index.say_if_replaced(leaf)
        own_file = local.get(name)
        part = _on_its_data(index, name) if own_file is None else _on_own_file(index, name, own_file, shots.get(name))
        for leaf, task in part.tasks.items():
            if own_file is not None or index.is_own(leaf):
                where = str(own_file or choice.folder)
                run_its_code(leaf, partial(require_answerable, leaf, task, where, choice.limit), where)
        loaded |= part
    return loaded


@final
@dataclass(frozen=True)
class _Index:
    """What the harness knows of: the folders of the tasks asked for, read by it."""

    manager: Any
    folder: Path | None

    @classmethod
    def of(cls, choice: TaskChoice) -> "_Index":
        folders: list[Path] = []
        own = [] if choice.folder is None else [choice.folder]
        if choice.folder is not None:
            _require_readable(choice.folder)
        wanted = list(choice.names)
        while True:  # a group may have members in other folders
            with quiet():
                manager = TaskManager(include_path=[str(path) for path in (*folders, *own)], include_defaults=False)
            index = cls(manager, choice.folder)
            wanted += [name for entry in manager.task_index.values() for name in _members(entry)]
            found = {path for name in wanted if name not in manager.task_index for path in folders_of(name)}
            wanted = []
            if not found - set(folders):
                break
            folders += sorted(found - set(folders))
        for name in choice.names:
            if name not in manager.task_index:
                raise UserError(index._unknown(name))
        return index

    def all_of_folder(self) -> tuple[str, ...]:
        """The groups of the person's folder, and its tasks that are in none of them.

        Raises:
            UserError: it has none.
        """
        if self.folder is None:
            raise UserError("name tasks, as --tasks lambada_openai,arc_easy, or a folder of them by --tasks-from")
        inside = {name: entry for name, entry in self.manager.task_index.items() if self.is_own(name)}
        members = {name for entry in inside.values() for name in _members(entry)}
        names = tuple(name for name in inside if name not in members)
        if not names:
            raise UserError(f"{self.folder} has no task: a YAML file (.yaml) with a line `task: NAME`")
        return names

    def leaves(self, name: str) -> list[str]:
        """The tasks under a task, group or tag."""
        entry = self.manager.task_index[name]
        below = sorted(entry.tags) if self.is_tag(name) else _members(entry)
        return [leaf for each in below for leaf in self.leaves(each)] if below else [name]

    def without_tags(self, name: str) -> list[str]:
        """The tasks under a tag, each of which may have a file of its own; a task or group as it is."""
        return self.leaves(name) if self.is_tag(name) else [name]

    def is_tag(self, name: str) -> bool:
        return bool(self.manager.task_index[name].kind.name == "TAG")

    def config(self, name: str) -> Mapping[str, Any]:
        return self.manager.task_index[name].cfg or {}

    def is_own(self, name: str) -> bool:
        """It is of the person's folder."""
        entry = self.manager.task_index.get(name)
        yaml_path = None if entry is None else entry.yaml_path
        return self.folder is not None and yaml_path is not None and yaml_path.is_relative_to(self.folder)

    def say_if_replaced(self, name: str) -> None:
        """Say that a task of the person's folder stands for the harness's own of that name."""
        if self.is_own(name) and is_built_in(name):
            say(f"{name} of {self.folder} takes the place of lm-evaluation-harness's own task of that name")

    def _unknown(self, name: str) -> str:
        known = [*self.manager.task_index, *all_names()]
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        hint = f" (did you mean {' or '.join(close)}?)" if close else ""
        return f"unknown task {name!r}{hint}; tasks are those of lm-evaluation-harness, and of --tasks-from FOLDER"


def _on_its_data(index: _Index, name: str) -> LoadedTasks:
    """A task or group on its own data set, from the hub or from the files that its own YAML names."""
    overrides = {leaf: found for leaf in index.leaves(name) if (found := _files_beside(index, leaf))}
    if overrides:
        return _built(index, name, lambda: _members_with(index, name, overrides), "")
    say(f"reading the items of {name}")
    return _built(index, name, lambda: index.manager.load([name]), f"give it by --local {name}=FILE")


def _on_own_file(index: _Index, name: str, file: Path, shots: Path | None) -> LoadedTasks:
    """A task on the items of a file; or a group, one of whose columns says which task an item is of."""
    rows = read_rows(file)
    examples = None if shots is None else read_rows(shots)
    leaves = index.leaves(name)
    fields = list(rows[0])
    if leaves == [name]:
        require_fields(name, index.config(name), fields, str(file))
        overrides = {name: _instead(rows, examples)}
        return _built(index, name, lambda: _members_with(index, name, overrides), "", file, fields)
    subsets = {str(index.config(leaf).get("dataset_name")): leaf for leaf in leaves}
    column = next((key for key, value in rows[0].items() if str(value) in subsets), None)
    if column is None:
        raise UserError(
            f"{file}: no field of its first line names a task of {name}, as {next(iter(subsets))!r}; fields are "
            f"{', '.join(fields)}"
        )
    require_fields(name, index.config(leaves[0]), fields, str(file))
    parts = _by_value(rows, column)
    examples_of = {} if examples is None else _by_value(examples, column)
    unknown = sorted(parts.keys() - subsets.keys())
    if unknown:
        raise UserError(f"{file}: {column} = {unknown[0]!r} is no task of {name}")
    overrides = {
        subsets[value]: _instead(part, examples_of.get(value) if examples is not None else None)
        for value, part in parts.items()
    }
    loaded = _built(index, name, lambda: _members_with(index, name, overrides), "", file, fields)
    if len(overrides) == len(leaves):
        return loaded
    note = f"an average over the {len(overrides)} of its {len(leaves)} tasks that {file.name} has"
    return replace(loaded, notes={name: note})


def _members_with(index: _Index, name: str, overrides: Mapping[str, Mapping[str, Any]]) -> Any:
    """Tasks with some settings of their own; of a group, only these."""
    members = [{"task": leaf, **settings} for leaf, settings in overrides.items()]
    # As members of a group, since the harness lets these alone inherit what they do not set.
    tasks = index.manager.load([{"group": f"only {name}", "task": members}])["tasks"]
    if list(overrides) == [name] or index.is_tag(name):
        return {"tasks": tasks, "groups": {}}
    config = index.config(name)
    averages = config.get("aggregate_metric_list") or [{"metric": "acc", "weight_by_size": False}]
    group = Group.from_config(
        GroupConfig(group=name, aggregate_metric_list=averages, metadata=dict(config.get("metadata") or {}))
    )
    for task in tasks.values():
        group.add(task)
    return {"tasks": tasks, "groups": {name: group}}


def _built(
    index: _Index,
    name: str,
    load: Callable[[], Any],
    remedy: str,
    file: Path | None = None,
    fields: Sequence[str] = (),
) -> LoadedTasks:
    """What `load` builds.

    Args:
        remedy: what to do where the data cannot be had.
        file: that the items are read from, if it is the person's, with the fields that they have.
    """
    source = file or index.config(index.leaves(name)[0]).get("dataset_path") or "its data"
    loaded = run_its_code(name, load, str(source), remedy=remedy, fields=fields, own=index.is_own(name))
    return LoadedTasks(loaded["tasks"], loaded["groups"], (*loaded["groups"], *loaded["tasks"]))


def _instead(rows: Sequence[Mapping[str, Any]], examples: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """Settings of a task that is to read these rows."""
    splits = {_SPLIT: rows} if examples is None else {_SPLIT: rows, _SHOTS_SPLIT: examples}

    def made(**_: Any) -> dict[str, datasets.Dataset]:
        return {split: datasets.Dataset.from_list(list(part)) for split, part in splits.items()}

    settings: dict[str, Any] = {"custom_dataset": made, "dataset_name": None, "dataset_kwargs": None}
    settings |= {"training_split": None, "validation_split": None, "test_split": _SPLIT}
    if examples is not None:
        return settings | {"fewshot_split": _SHOTS_SPLIT}
    # From the rows themselves: the harness leaves out the one that is asked, but only if it draws them.
    return settings | {"fewshot_split": _SPLIT, "fewshot_config": None}


def _files_beside(index: _Index, name: str) -> dict[str, Any]:
    """Files that a task of the person's folder names by a path that is relative to its YAML."""
    entry, config = index.manager.task_index[name], index.config(name)
    kwargs = config.get("dataset_kwargs") or {}
    if index.folder is None or entry.yaml_path is None or "data_files" not in kwargs:
        return {}
    beside = Path(entry.yaml_path).parent

    def found(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: found(each) for key, each in value.items()}
        if isinstance(value, list):
            return [found(each) for each in value]
        if "://" in str(value) or Path(value).exists():
            return value
        if not (beside / value).exists():
            raise UserError(f"task {name} reads {value}, which is neither here nor beside {entry.yaml_path}")
        return str(beside / value)

    files = found(kwargs["data_files"])
    return {} if files == kwargs["data_files"] else {"dataset_kwargs": {**kwargs, "data_files": files}}


def _files_of_shots(local: Mapping[str, Path]) -> dict[str, Path]:
    shots: dict[str, Path] = {}
    for name, file in local.items():
        task, colon, split = name.partition(":")
        if colon and split not in _SHOTS_FROM:
            raise UserError(f"--local {name}=…: behind a task's name may stand {', '.join(_SHOTS_FROM)}")
        if colon:
            shots[task] = file
    return shots


def _by_value(rows: Sequence[dict[str, Any]], column: str) -> dict[str, list[dict[str, Any]]]:
    parts: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        parts.setdefault(str(row.get(column)), []).append(row)
    return parts


def _members(entry: Any) -> list[str]:
    """Names of the tasks and groups that a group has."""
    below = (entry.cfg or {}).get("task") if entry.kind.name == "GROUP" else None
    names = [each if isinstance(each, str) else each.get("task") or each.get("group") for each in below or []]
    return [name for name in names if isinstance(name, str)]


def _require_readable(folder: Path) -> None:
    """The harness passes over files that it cannot read.

    Raises:
        UserError: a file of the folder declares a task, but is not valid YAML.
    """
    import yaml

    for path in sorted(folder.rglob("*.yaml")):
        try:
            root = yaml.compose(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
        for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
            if key.value == "task" and isinstance(value, yaml.ScalarNode) and value.tag != "tag:yaml.org,2002:str":
                raise UserError(f'{path}: task: {value.value} is no name; write it as task: "{value.value}-items"')
